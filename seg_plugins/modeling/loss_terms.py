"""What a loss is a mean of: heads return sums with counts, and everything above keeps them.

A batch that is taken in parts, or spread over processes, has the loss of the whole batch only if
each mean is weighed by what it is a mean of: pixels, where a :class:`Sum` says how many, else
images.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from detectron2.utils import comm
from torch import Tensor


class Sum(NamedTuple):
    """A sum over this process's part of the batch, and the number of its members.

    Attributes:
        total: scalar, with its graph.
        count: integer scalar.
    """

    total: Tensor
    count: Tensor


class Mean(NamedTuple):
    """A mean, and its divisor.

    Attributes:
        value: scalar, with its graph.
        count: integer scalar, over all processes; None: the images of the batch.
    """

    value: Tensor
    count: Tensor | None  # type: ignore[assignment]  # tuple has a method of that name


class Loss(tuple[Mean, ...]):
    """One loss, as the means whose sum it is.

    Attributes:
        value: scalar, with its graph.
    """

    __slots__ = ()

    @classmethod
    def of(cls, loss: Loss | Sum | Tensor) -> Loss:
        """From a sum, or from a scalar, which is a mean over the batch's images.

        A :class:`Sum` is divided by the count of all processes. Data-parallel training averages
        gradients over processes; the sum is scaled by their number, so that N processes take the
        same step as one process with the whole batch, however unevenly pixels are spread. It is 0,
        with a zero gradient, where no process has a member.

        Raises:
            ValueError: it is no scalar, e.g. a loss by pixel.
        """
        if isinstance(loss, Loss):
            return loss
        if not isinstance(loss, Sum):
            return cls([Mean(_scalar(loss), None)])
        total = _scalar(loss.total)
        count = torch.as_tensor(loss.count, device=total.device).reshape(())
        world_size = comm.get_world_size()
        if world_size > 1:
            count = count.clone()
            dist.all_reduce(count)
        return cls([Mean(total * world_size / count.clamp(min=1), count)])

    @property
    def value(self) -> Tensor:
        """The sum of the means: what is minimised."""
        if len(self) == 1:
            return self[0].value
        return torch.stack([mean.value for mean in self]).sum()

    def times(self, factor: float | Tensor) -> Loss:
        """The loss scaled, every mean of it."""
        return Loss(Mean(mean.value * factor, mean.count) for mean in self)

    def plus(self, term: Tensor) -> Loss:
        """The loss with a scalar added to its first mean."""
        first, *others = self
        return Loss([Mean(first.value + term, first.count), *others])


class Losses(dict[str, Tensor]):
    """Scalar losses by name, as Detectron2 has them, which know what they are means of.

    A value that is replaced by a plain tensor, or changed in place, or comes as one, is a mean
    over the batch's images; ``losses[name] = losses.loss(name).times(2)`` scales one that knows
    more. A plain dict made of these (``dict(losses)``, ``{**losses}``) has scalars alone.

    Args:
        losses: name -> loss; those of another :class:`Losses` keep what they are means of.
    """

    def __init__(self, losses: Mapping[str, Loss | Sum | Tensor] | None = None) -> None:
        super().__init__()
        # Each with the scalar that stands for it: a dict's values can be replaced in many ways.
        self._known: dict[str, tuple[Tensor, int, Loss]] = {}
        self.update(losses or {})

    def __setitem__(self, name: str, loss: Loss | Sum | Tensor) -> None:
        of = Loss.of(loss)
        super().__setitem__(name, of.value)
        self._known[name] = (self[name], _version(self[name]), of)

    def loss(self, name: str) -> Loss:
        """A loss with what it is a mean of."""
        scalar, version, known = self._known.get(name, (None, 0, None))
        if known is not None and self[name] is scalar and _version(scalar) == version:
            return known
        return Loss.of(self[name])

    def update(  # type: ignore[override]  # values are kept as losses, which dict would not do
        self, losses: Mapping[str, Loss | Sum | Tensor]
    ) -> None:
        """Add or replace losses; those of another :class:`Losses` keep what they are means of."""
        for name, loss in losses.items():
            self[name] = losses.loss(name) if isinstance(losses, Losses) else loss

    def copy(self) -> Losses:
        """The same losses in a mapping of its own."""
        return Losses(self)

    def __or__(self, other: Mapping[str, Loss | Sum | Tensor]) -> Losses:  # type: ignore[override]
        return self.joined(other)

    def __ior__(self, other: Mapping[str, Loss | Sum | Tensor]) -> Losses:  # type: ignore[override]
        self.update(other)
        return self

    def __reduce__(self) -> Any:  # copies and pickles: with what is known
        return Losses, ({name: self.loss(name) for name in self},)

    def joined(self, *others: Mapping[str, Loss | Sum | Tensor]) -> Losses:
        """These and others; a plain dict's are means over images."""
        joined = self.copy()
        for other in others:
            joined.update(other)
        return joined


def _scalar(loss: Any) -> Tensor:
    if not torch.is_tensor(loss) or loss.numel() != 1:
        given = f"of shape {tuple(loss.shape)}" if torch.is_tensor(loss) else repr(loss)
        raise ValueError(
            f"a loss is a scalar tensor, the mean over the images, or a Sum(total, count), not "
            f"{given}"
        )
    return loss.reshape(())


def _version(scalar: Tensor) -> int:
    return 0 if scalar.is_inference() else scalar._version
