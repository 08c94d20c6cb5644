"""What a loss is a mean of: heads return sums with counts, and everything above keeps them.

A batch that is taken in parts, or spread over processes, has the loss of the whole batch only if
each mean is weighed by what it is a mean of: pixels, where a :class:`Sum` says how many, else
images.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

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
        """
        if isinstance(loss, Loss):
            return loss
        if not isinstance(loss, Sum):
            return cls([Mean(loss, None)])
        total, count = loss
        world_size = comm.get_world_size()
        if world_size > 1:
            count = count.clone()
            dist.all_reduce(count)
        return cls([Mean(total * world_size / count.clamp(min=1), count)])

    @property
    def value(self) -> Tensor:
        """The sum of the means: what is minimised."""
        return torch.stack([mean.value for mean in self]).sum()

    def times(self, factor: float | Tensor) -> Loss:
        """The loss scaled, every mean of it."""
        return Loss(Mean(mean.value * factor, mean.count) for mean in self)


class Losses(dict[str, Tensor]):
    """Scalar losses by name, as Detectron2 has them, which know what they are means of.

    A value that is replaced by a plain tensor, or comes as one, is a mean over the batch's images.

    Args:
        losses: name -> loss; those of another :class:`Losses` keep what they are means of.
    """

    def __init__(self, losses: Mapping[str, Loss | Sum | Tensor] | None = None) -> None:
        super().__init__()
        # Each with the scalar that stands for it: a dict's values can be replaced in many ways.
        self._known: dict[str, tuple[Tensor, Loss]] = {}
        for name, loss in (losses or {}).items():
            self[name] = losses.loss(name) if isinstance(losses, Losses) else loss

    def __setitem__(self, name: str, loss: Loss | Sum | Tensor) -> None:
        of = Loss.of(loss)
        super().__setitem__(name, of.value)
        self._known[name] = (self[name], of)

    def loss(self, name: str) -> Loss:
        """A loss with what it is a mean of."""
        scalar, known = self._known.get(name, (None, None))
        return known if known is not None and self[name] is scalar else Loss.of(self[name])

    def joined(self, *others: Mapping[str, Loss | Sum | Tensor]) -> Losses:
        """These and others; a plain dict's are means over images."""
        parts = [self, *(Losses(other) for other in others)]
        return Losses({name: part.loss(name) for part in parts for name in part})
