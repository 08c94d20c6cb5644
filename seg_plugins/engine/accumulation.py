"""A batch taken in parts, with the gradient of the whole.

Each loss of a part is a mean: of its pixels where :func:`~seg_plugins.modeling.losses.global_mean`
took it, else of its images. The mean over the batch weighs the parts by what they are means of.
How many pixels are counted is known only when all parts have been seen, so that losses of
different divisors keep gradients of their own until the last part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ..modeling.losses import Mean

# The divisor of losses that are no means of pixels.
_IMAGES = -1


class Parts:
    """Gradients of the parts so far, as those of one batch.

    Args:
        parameters: whose ``grad`` is worked with; None in all before the first part.

    Attributes:
        losses: of all parts so far, detached.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.losses: dict[str, Tensor] = {}
        self._parameters = parameters
        # By divisor (its place among the means of a part): how much it counts, and the gradients.
        self._seen: dict[int, Tensor] = {}
        self._held: dict[int, list[Tensor | None]] = {}

    def add(
        self,
        losses: Mapping[str, Tensor],
        means: Sequence[Mean],
        images: int,
        scale: Callable[[Tensor], Tensor],
        *,
        last: bool,
    ) -> None:
        """Take in a part; after the last one, ``grad`` has the gradients of the batch.

        Under DistributedDataParallel all parts but the last come within ``no_sync``.

        Args:
            losses: scalars with their graphs.
            means: those that the losses are made of.
            images: of the part.
            scale: the gradient scaler's.
            last: no more parts come.
        """
        divisors = {name: _divisor(loss, means) for name, loss in losses.items()}
        shares: dict[int, Tensor] = {}
        for divisor in dict.fromkeys(divisors.values()):
            any_loss = next(iter(losses.values()))
            here = torch.tensor(images) if divisor == _IMAGES else means[divisor].count
            here = here.to(any_loss)
            self._seen[divisor] = self._seen.get(divisor, torch.zeros_like(here)) + here
            shares[divisor] = here / self._seen[divisor].clamp(min=1)
        for name, loss in losses.items():
            share = shares[divisors[name]]
            before = self.losses.get(name, torch.zeros_like(share))
            self.losses[name] = before * (1 - share) + loss.detach() * share
        totals = {
            divisor: torch.stack([v for k, v in losses.items() if divisors[k] == divisor]).sum()
            * share
            for divisor, share in shares.items()
        }
        totals = {divisor: total for divisor, total in totals.items() if total.requires_grad}
        for divisor, gradients in self._held.items():
            present = [g for g in gradients if g is not None]
            if present and divisor in shares:
                torch._foreach_mul_(present, 1 - shares[divisor])
        if last:
            self._restore(_sum(list(self._held.values())))
            scale(torch.stack(list(totals.values())).sum()).backward()
            return
        for place, (divisor, total) in enumerate(totals.items(), start=1):
            self._restore(self._held.get(divisor))
            scale(total).backward(retain_graph=place < len(totals))
            self._held[divisor] = [p.grad for p in self._parameters]

    def _restore(self, gradients: Sequence[Tensor | None] | None) -> None:
        for place, parameter in enumerate(self._parameters):
            parameter.grad = gradients[place] if gradients else None


def _divisor(loss: Tensor, means: Sequence[Mean]) -> int:
    """The place of the first mean that a loss is made of, or that of images."""
    places = [i for i, mean in enumerate(means) if mean.value.requires_grad]
    if not places or not loss.requires_grad:
        return _IMAGES
    found = torch.autograd.grad(
        loss, [means[i].value for i in places], retain_graph=True, allow_unused=True
    )
    return next((i for i, part in zip(places, found, strict=True) if part is not None), _IMAGES)


def _sum(gradients: Sequence[Sequence[Tensor | None]]) -> list[Tensor | None]:
    """Of several sets of gradients, parameter by parameter."""
    total: list[Tensor | None] = []
    for each in zip(*gradients, strict=True):
        present = [g for g in each if g is not None]
        for other in present[1:]:
            present[0].add_(other)
        total.append(present[0] if present else None)
    return total
