"""A batch taken in parts, with the gradient of the whole.

Each loss of a part is made of means, of pixels or of images, as
:class:`~seg_plugins.modeling.loss_terms.Losses` tells. The mean over the batch weighs the parts by
what they are means of. How many pixels are counted is known only when all parts have been seen, so
that means with different divisors keep gradients of their own until the last part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ..modeling.loss_terms import Losses

# Which mean of a loss: its name and place; all means over images have one divisor.
_Divisor = tuple[str, int]
_IMAGES: _Divisor = ("", 0)


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
        # By divisor: how much it counts, and the gradients.
        self._seen: dict[_Divisor, Tensor] = {}
        self._values: dict[tuple[str, int], Tensor] = {}
        self._held: dict[_Divisor, list[Tensor | None]] = {}

    def add(
        self,
        losses: Mapping[str, Tensor],
        images: int,
        scale: Callable[[Tensor], Tensor],
        *,
        last: bool,
    ) -> None:
        """Take in a part; after the last one, ``grad`` has the gradients of the batch.

        Under DistributedDataParallel all parts but the last come within ``no_sync``.

        Args:
            losses: scalars with their graphs; see :class:`~..modeling.loss_terms.Losses`.
            images: of the part.
            scale: the gradient scaler's.
            last: no more parts come.
        """
        parts = Losses(losses)
        totals: dict[_Divisor, Tensor] = {}
        shares: dict[_Divisor, Tensor] = {}
        for name, loss in parts.items():
            value = torch.zeros((), device=loss.device)
            for place, (mean, count) in enumerate(parts.loss(name)):
                mean = mean.float().reshape(())
                divisor = _IMAGES if count is None else (name, place)
                if divisor not in shares:
                    here = torch.tensor(images) if count is None else count
                    here = here.to(value)
                    self._seen[divisor] = self._seen.get(divisor, torch.zeros_like(here)) + here
                    shares[divisor] = here / self._seen[divisor].clamp(min=1)
                key, share = (name, place), shares[divisor]
                before = self._values.get(key, torch.zeros_like(value))
                self._values[key] = before * (1 - share) + mean.detach() * share
                value += self._values[key]
                if mean.requires_grad:
                    totals[divisor] = totals.get(divisor, 0) + mean * share
            self.losses[name] = value
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


def _sum(gradients: Sequence[Sequence[Tensor | None]]) -> list[Tensor | None]:
    """Of several sets of gradients, parameter by parameter."""
    total: list[Tensor | None] = []
    for each in zip(*gradients, strict=True):
        present = [g for g in each if g is not None]
        for other in present[1:]:
            present[0].add_(other)
        total.append(present[0] if present else None)
    return total
