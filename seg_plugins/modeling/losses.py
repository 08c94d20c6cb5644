"""Losses of the semantic systems, chosen by ``MODEL.SEM_SEG_HEAD.LOSS_TYPE``.

One name, or a weighted sum such as ``"cross_entropy + 0.5 * dice"``:

=====================  ===========================================================================
``cross_entropy``      mean over the valid pixels
``hard_pixel_mining``  mean over the hardest 20% of the valid pixels (DeepLab)
``ohem``               mean over the valid pixels whose class has a probability below 0.7, at
                       least one sixteenth of the valid pixels
``focal``              cross-entropy times (1 - p)^2 (Lin et al. 2017)
``dice``               1 - Dice coefficient, mean of occurring classes (Milletari et al. 2016)
``lovasz``             Lovasz-softmax, mean of occurring classes (Berman et al. 2018)
=====================  ===========================================================================

The first four take class weights and pixel weights, which multiply a pixel's loss and do not enter
the divisor, and are normalised over the pixels of all processes; Dice and Lovasz-softmax are
quotients over a whole set of pixels: each process takes its own batch. With one class, softmax
becomes sigmoid. Every loss is 0, with a zero gradient, where all pixels are ignored.
"""

from __future__ import annotations

import contextlib
import functools
import math
import re
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from detectron2.utils import comm
from torch import Tensor, nn

from ..config import ConfigError

TOP_FRACTION = 0.2
OHEM_THRESHOLD, OHEM_FRACTION = 0.7, 1 / 16
FOCAL_GAMMA = 2.0


_counts: list[Tensor] | None = None


@contextlib.contextmanager
def recorded_counts() -> Iterator[list[Tensor]]:
    """Collect the divisors of all means within the block: integer scalars, over all processes.

    Gradient accumulation weighs the parts of a batch by them.
    """
    global _counts
    _counts, before = [], _counts
    try:
        yield _counts
    finally:
        _counts = before


def global_mean(total: Tensor, count: Tensor) -> Tensor:
    """Mean over the pixels of all processes, from this process's sum.

    Data-parallel training averages gradients over processes; this sum is scaled by the number
    of processes and divided by the count of all of them, so that N processes take the same step
    as one process with the whole batch, however unevenly valid pixels are spread.

    Args:
        total: scalar, the sum over this process's pixels.
        count: integer scalar, the number of this process's pixels.

    Returns:
        Scalar; 0 with a zero gradient where no process has a pixel.
    """
    world_size = comm.get_world_size()
    if world_size > 1:
        count = count.clone()
        dist.all_reduce(count)
    if _counts is not None:
        _counts.append(count)
    return total * world_size / count.clamp(min=1)


class Pixels:
    """A batch as the losses see it: logits, targets and the factors of each pixel's loss.

    Args:
        logits: (N, K, H, W) float32.
        targets: (N, H, W) int64; K = 1: label 1 is the class, 0 is everything else.
        ignore_value: the label that is left out.
        class_weights: (K,) factors by class; (2,) for background and class where K = 1.
        weights: (N, H, W) factors by pixel.
    """

    def __init__(
        self,
        logits: Tensor,
        targets: Tensor,
        ignore_value: int,
        class_weights: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> None:
        self.logits, self.targets, self.ignore_value = logits, targets, ignore_value
        self.class_weights, self.weights = class_weights, weights
        self.valid = targets != ignore_value

    @functools.cached_property
    def log_probabilities(self) -> Tensor:
        """(N, K, H, W), K > 1; the terms of a sum share it, and its softmax runs along planes."""
        return self.logits.log_softmax(dim=1)

    def plain_cross_entropy(self, class_weights: Tensor | None = None) -> Tensor:
        """Cross-entropy (N, H, W) in nats, 0 at ignored pixels; sigmoid where there is one class.

        Args:
            class_weights: factors by class.
        """
        if self.logits.shape[1] > 1:
            return F.nll_loss(
                self.log_probabilities,
                self.targets,
                class_weights,
                ignore_index=self.ignore_value,
                reduction="none",
            )
        positive = self.targets == 1
        loss = F.binary_cross_entropy_with_logits(
            self.logits[:, 0], positive.to(self.logits.dtype), reduction="none"
        )
        if class_weights is not None:
            loss = loss * class_weights[positive.long()]
        return loss.masked_fill(~self.valid, 0.0)

    def cross_entropy(self) -> Tensor:
        """The same with the weights of classes and pixels."""
        loss = self.plain_cross_entropy(self.class_weights)
        return loss if self.weights is None else loss * self.weights

    def probabilities(self) -> tuple[Tensor, Tensor]:
        """Probabilities and one-hot targets (N, C, H, W), 0 and False at ignored pixels.

        C is the number of classes; 1 where there is one.
        """
        classes: Tensor | int = 1
        if self.logits.shape[1] == 1:
            probabilities = self.logits.sigmoid()
        else:
            probabilities = self.log_probabilities.exp()
            classes = torch.arange(self.logits.shape[1], device=self.logits.device)[:, None, None]
        valid = self.valid[:, None]
        return torch.where(valid, probabilities, 0.0), (self.targets[:, None] == classes) & valid


def cross_entropy(pixels: Pixels) -> Tensor:
    """Mean cross-entropy of the valid pixels."""
    return global_mean(pixels.cross_entropy().sum(), pixels.valid.sum())


def focal(pixels: Pixels) -> Tensor:
    """Mean of the cross-entropy times (1 - p)^2, p the probability of the pixel's own class."""
    with_weights = pixels.cross_entropy()
    plain = pixels.plain_cross_entropy()
    modulation = (-torch.expm1(-plain)).clamp(min=0) ** FOCAL_GAMMA
    return global_mean((with_weights * modulation).sum(), pixels.valid.sum())


def hard_pixel_mining(pixels: Pixels) -> Tensor:
    """Mean of the largest 20% of the valid pixels' losses; ignored pixels do not count in the k."""
    losses = pixels.cross_entropy()[pixels.valid]
    hardest = losses.topk(math.ceil(TOP_FRACTION * losses.numel())).values
    return global_mean(hardest.sum(), torch.tensor(hardest.numel(), device=losses.device))


def ohem(pixels: Pixels) -> Tensor:
    """Mean over pixels that are not learned yet: p < 0.7, or the hardest sixteenth if more."""
    losses = pixels.cross_entropy()[pixels.valid]
    plain = pixels.plain_cross_entropy()[pixels.valid]
    wrong = int((plain.detach() > -math.log(OHEM_THRESHOLD)).sum())
    kept = plain.detach().topk(max(wrong, math.ceil(OHEM_FRACTION * plain.numel()))).indices
    return global_mean(losses[kept].sum(), torch.tensor(kept.numel(), device=losses.device))


def dice(pixels: Pixels) -> Tensor:
    """1 - 2 |A B| / (|A| + |B|) with probabilities A and targets B, mean over occurring classes."""
    one_class = pixels.logits.shape[1] == 1
    probability = pixels.logits.sigmoid() if one_class else pixels.log_probabilities.exp()
    # Without further tensors of all classes: of a thousand, each is hundreds of megabytes.
    mass = torch.einsum("nkhw,nhw->k", probability, pixels.valid.to(probability.dtype))
    members = pixels.targets == 1 if one_class else pixels.valid
    labels = pixels.targets.masked_fill(~members, len(mass))
    if one_class:
        labels = labels.masked_fill(members, 0)
    own = torch.exp(-pixels.plain_cross_entropy())
    parts = torch.stack([own, torch.ones_like(own)], dim=-1).flatten(0, 2).double()
    sums = parts.new_zeros(len(mass) + 1, 2).index_add(0, labels.flatten(), parts)[:-1].float()
    overlap, area = sums.unbind(1)
    coefficient = 2 * overlap / (mass + area).clamp(min=1e-6)
    return _mean_of_present(1 - coefficient, area > 0, pixels)


def lovasz(pixels: Pixels) -> Tensor:
    """Lovasz extension of the Jaccard loss of each occurring class, mean (algorithm 1)."""
    # By pixel and class, without the ignored pixels.
    probability, target = (part.movedim(1, -1)[pixels.valid] for part in pixels.probabilities())
    target = target.to(probability.dtype)
    errors, order = (target - probability).abs().sort(dim=0, descending=True)
    target = target.gather(0, order)
    area = target.sum(dim=0)
    # Jaccard loss when the first i errors are counted as mistakes.
    jaccard = 1 - (area - target.cumsum(0)) / (area + (1 - target).cumsum(0)).clamp(min=1e-6)
    steps = torch.cat([jaccard[:1], jaccard[1:] - jaccard[:-1]])
    return _mean_of_present((errors * steps).sum(dim=0), area > 0, pixels)


def _mean_of_present(losses: Tensor, present: Tensor, pixels: Pixels) -> Tensor:
    anchor = pixels.logits.sum() * 0.0  # keeps a graph when nothing is left
    return torch.where(present, losses, 0.0).sum() / present.sum().clamp(min=1) + anchor


LOSSES: dict[str, Callable[[Pixels], Tensor]] = {
    function.__name__: function
    for function in (cross_entropy, hard_pixel_mining, ohem, focal, dice, lovasz)
}


def parse_loss_type(text: str) -> list[tuple[float, str]]:
    """Factors and names of ``"cross_entropy + 0.5 * dice"``.

    Raises:
        ConfigError: an unknown name or a sum that cannot be read.
    """
    terms = []
    for term in text.split("+"):
        match = re.fullmatch(r"\s*(?:([0-9.]+(?:e-?[0-9]+)?)\s*\*)?\s*(\w+)\s*", term)
        if match is None or match[2] not in LOSSES:
            raise ConfigError(
                f"MODEL.SEM_SEG_HEAD.LOSS_TYPE '{text}': '{term.strip()}' is not one of "
                f"{', '.join(LOSSES)}. A sum is written 'cross_entropy + 0.5 * dice'."
            )
        terms.append((float(match[1] or 1), match[2]))
    return terms


def resolve_class_weights(
    value: str | Sequence[float] | None, num_classes: int
) -> list[float] | None:
    """Class weights from ``MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS``.

    Args:
        value: None or "none", or a factor per class.
        num_classes: K; a single class takes two factors, background first.

    Raises:
        ConfigError: a list of the wrong length, or the name of a scheme: it needs the training
            set, which a model does not see.
    """
    if value is None or value == "none":
        return None
    if isinstance(value, str):
        raise ConfigError(
            f"MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS '{value}': a model takes 'none' or a list of "
            "numbers. The named schemes are worked out from the training set by "
            "tools/train_net.py, which writes the list into config.yaml."
        )
    expected = max(num_classes, 2)
    if len(value) != expected:
        raise ConfigError(
            f"MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS has {len(value)} factors, but {expected} are needed "
            f"for NUM_CLASSES {num_classes}: one per class, in the order of the class ids"
        )
    return [float(factor) for factor in value]


class SemanticLoss(nn.Module):
    """The loss of a semantic head: a weighted sum of the functions above."""

    class_weights: Tensor | None

    def __init__(
        self,
        *,
        loss_type: str = "cross_entropy",
        num_classes: int,
        ignore_value: int = 255,
        class_weights: str | Sequence[float] | None = None,
    ) -> None:
        """Build the loss.

        Args:
            loss_type: see the module.
            num_classes: number of score channels K.
            ignore_value: the label of pixels that contribute nothing.
            class_weights: see :func:`resolve_class_weights`.
        """
        super().__init__()
        self.terms = parse_loss_type(loss_type)
        self.ignore_value = ignore_value
        factors = resolve_class_weights(class_weights, num_classes)
        weights = torch.tensor(factors, dtype=torch.float32) if factors else None
        self.register_buffer("class_weights", weights, persistent=False)

    def forward(self, logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        """Compute the loss.

        Args:
            logits: (N, K, H, W), any float type; computed in float32.
            targets: (N, H, W) int64 labels.
            weights: optional (N, H, W) float32 factors by pixel, e.g. U-Net's border weights.

        Returns:
            Scalar float32.
        """
        with torch.autocast(logits.device.type, enabled=False):
            pixels = Pixels(logits.float(), targets, self.ignore_value, self.class_weights, weights)
            losses = [factor * LOSSES[name](pixels) for factor, name in self.terms]
            return torch.stack(losses).sum()
