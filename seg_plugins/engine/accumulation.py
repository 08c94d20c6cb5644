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
        self._values: dict[tuple[str, _Divisor], Tensor] = {}
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
        means = {name: parts.loss(name) for name in parts}
        # Images count in every part: a loss that a part lacks is 0 there.
        device = next(iter(parts.values())).device
        counts: dict[_Divisor, Tensor] = {_IMAGES: torch.full((), images, device=device)}
        for name, loss in means.items():
            for place, mean in enumerate(loss):
                if mean.count is not None:
                    counts[name, place] = mean.count
        shares = {divisor: self._share(divisor, count) for divisor, count in counts.items()}
        for (_, divisor), value in self._values.items():
            if divisor in shares:
                value *= (1 - shares[divisor]).to(value)
        for name, loss in means.items():
            for place, (mean, count) in enumerate(loss):
                divisor = _IMAGES if count is None else (name, place)
                weighed = mean.float() * shares[divisor].to(mean.device)
                key = (name, divisor)
                self._values[key] = self._values.get(key, 0) + weighed.detach()
                if mean.requires_grad:
                    totals[divisor] = totals.get(divisor, 0) + weighed
        self.losses = {}
        for (name, _), value in self._values.items():
            self.losses[name] = self.losses.get(name, 0) + value
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

    def _share(self, divisor: _Divisor, count: Tensor) -> Tensor:
        """Of all that is seen so far, this part's share, float32."""
        seen = self._seen.get(divisor)
        self._seen[divisor] = count if seen is None else seen + count
        return count.float() / self._seen[divisor].clamp(min=1)

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
