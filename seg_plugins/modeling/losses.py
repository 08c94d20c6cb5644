"""Losses of the semantic systems, by the names that ``MODEL.SEM_SEG_HEAD.LOSS_TYPE`` gives them:

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
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from detectron2.utils import comm
from torch import Tensor

MINING_SHARE = 5  # every fifth pixel
OHEM_THRESHOLD, OHEM_SHARE = 0.7, 16
FOCAL_GAMMA = 2.0


class Mean(NamedTuple):
    """A mean over pixels, and its divisor.

    Attributes:
        value: scalar, with its graph.
        count: integer scalar, over all processes.
    """

    value: Tensor
    count: Tensor


# Of this thread or task alone: two models may be trained side by side.
_means: ContextVar[list[Mean] | None] = ContextVar("_means", default=None)


@contextlib.contextmanager
def recorded_means() -> Iterator[list[Mean]]:
    """Collect the means that are taken within the block, in their order.

    Gradient accumulation weighs the parts of a batch by their divisors.
    """
    found: list[Mean] = []
    token = _means.set(found)
    try:
        yield found
    finally:
        _means.reset(token)


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
    mean = total * world_size / count.clamp(min=1)
    means = _means.get()
    if means is not None:
        means.append(Mean(mean, count))
    return mean


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


def _hardest(losses: Tensor, valid: Tensor, share: int) -> tuple[Tensor, Tensor]:
    """One pixel in ``share``, rounded up: the hardest in falling order, and how many are valid.

    Ignored pixels have a loss of 0 and so come last. The shape depends on the size of the batch
    alone, not on what is valid: nothing waits for a GPU, and a compiled graph is used again.

    Args:
        losses: any shape, >= 0.
        valid: the same, bool.
        share: of how many pixels one is taken.

    Returns:
        (ceil(pixels / share),) losses, and ceil(valid pixels / share), an integer scalar.
    """
    hardest = losses.flatten().topk(-(-losses.numel() // share)).values
    return hardest, (valid.sum() + share - 1) // share


def hard_pixel_mining(pixels: Pixels) -> Tensor:
    """Mean of the largest 20% of the valid pixels' losses; ignored pixels do not count in the k."""
    hardest, count = _hardest(pixels.cross_entropy(), pixels.valid, MINING_SHARE)
    kept = torch.arange(len(hardest), device=hardest.device) < count
    return global_mean(torch.where(kept, hardest, 0.0).sum(), count)


def ohem(pixels: Pixels) -> Tensor:
    """Mean over pixels that are not learned yet: p < 0.7, or the hardest sixteenth if more.

    Pixels with the loss of the sixteenth's last one share the places that are left: of a batch
    that is learned to a loss of 0 no more than a sixteenth counts, and none is picked by its place.
    """
    plain = pixels.plain_cross_entropy().detach()
    hardest, count = _hardest(plain, pixels.valid, OHEM_SHARE)
    least = hardest.take((count - 1).clamp(min=0))
    # No NaN is left out by a comparison: it stays to be found.
    kept = pixels.valid & ~((plain <= -math.log(OHEM_THRESHOLD)) & (plain <= least))
    tied = pixels.valid & ~kept & (plain == least)
    places = (count - kept.sum()).clamp(min=0)
    factors = torch.where(tied, places / tied.sum().clamp(min=1), kept.to(plain.dtype))
    losses = torch.where(kept | tied, pixels.cross_entropy() * factors, 0.0)
    return global_mean(losses.sum(), kept.sum() + places)


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
    # (classes, pixels); ignored pixels have an error of 0, so they come last and add nothing.
    probability, target = (part.transpose(0, 1).flatten(1) for part in pixels.probabilities())
    target = target.to(probability.dtype)
    errors, order = (target - probability).abs().sort(dim=1, descending=True)
    target = target.gather(1, order)
    area = target.sum(dim=1, keepdim=True)
    # Jaccard loss when the first i errors are counted as mistakes.
    jaccard = 1 - (area - target.cumsum(1)) / (area + (1 - target).cumsum(1)).clamp(min=1e-6)
    steps = torch.cat([jaccard[:, :1], jaccard.diff(dim=1)], dim=1)
    return _mean_of_present((errors * steps).sum(dim=1), area[:, 0] > 0, pixels)


def _mean_of_present(losses: Tensor, present: Tensor, pixels: Pixels) -> Tensor:
    anchor = pixels.logits.sum() * 0.0  # keeps a graph when nothing is left
    return torch.where(present, losses, 0.0).sum() / present.sum().clamp(min=1) + anchor


LOSSES: dict[str, Callable[[Pixels], Tensor]] = {
    function.__name__: function
    for function in (cross_entropy, hard_pixel_mining, ohem, focal, dice, lovasz)
}
