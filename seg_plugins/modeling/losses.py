"""Losses of the semantic systems, by the names that ``MODEL.SEM_SEG_HEAD.LOSS_TYPE`` gives them:

=====================  ===========================================================================
``cross_entropy``      mean over the valid pixels
``hard_pixel_mining``  mean over the hardest valid pixels, one in ``one_in=5`` (DeepLab: 20%)
``ohem``               mean over the valid pixels whose class has a probability below
                       ``threshold=0.7``, at least one in ``one_in=16`` of the valid pixels
``focal``              cross-entropy times (1 - p)^``gamma=2.0`` (Lin et al. 2017)
``dice``               1 - Dice coefficient, mean of occurring classes (Milletari et al. 2016)
``lovasz``             Lovasz-softmax, mean of occurring classes (Berman et al. 2018)
=====================  ===========================================================================

A loss of your own is a function ``fn(logits, targets, valid, weights, **options)`` registered in
:data:`LOSS_REGISTRY` under its name; its keyword arguments are its options:

- logits: (N, K, H, W) float32; K = 1 is one sigmoid score.
- targets: (N, H, W) int64, -100 (what PyTorch's losses leave out) where a pixel is ignored; with
  one class 1 is the class and 0 everything else.
- valid: (N, H, W) bool, False at ignored pixels.
- weights: (N, H, W) float32, the factor of each pixel's loss: of its class and of the pixel.

It returns a :class:`~.loss_terms.Sum` over pixels, which is divided by the count of all processes,
or a scalar, which is a mean over the images of the batch. The weights of the first four multiply a
pixel's loss and do not enter the divisor. Dice and Lovasz-softmax are quotients over a whole set
of pixels, without weights: each process takes its own batch. Every loss is 0, with a zero
gradient, where all pixels are ignored.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from fvcore.common.registry import Registry
from torch import Tensor

from ..config import ConfigError
from .loss_terms import Sum

IGNORED = -100

LOSS_REGISTRY = Registry("LOSS")
LOSS_REGISTRY.__doc__ = "Losses of semantic heads by name, see :mod:`seg_plugins.modeling.losses`."


def log_probabilities(logits: Tensor) -> Tensor:
    """Log-softmax over the classes, (N, K, H, W), K > 1; the terms of a sum share it."""
    known: Tensor | None = getattr(logits, "_log_probabilities", None)
    if known is not None:
        return known
    found = logits.log_softmax(dim=1)
    if not logits.is_leaf:  # the graph of a leaf's would hold the leaf, and neither be freed
        logits._log_probabilities = found
    return found


def pixel_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy (N, H, W) in nats, 0 at ignored pixels; sigmoid where there is one class."""
    if logits.shape[1] > 1:
        scores = log_probabilities(logits)
        return F.nll_loss(scores, targets, ignore_index=IGNORED, reduction="none")
    positive = (targets == 1).to(logits.dtype)
    loss = F.binary_cross_entropy_with_logits(logits[:, 0], positive, reduction="none")
    return loss.masked_fill(targets == IGNORED, 0.0)


@LOSS_REGISTRY.register()
def cross_entropy(logits: Tensor, targets: Tensor, valid: Tensor, weights: Tensor) -> Sum:
    """Cross-entropy of the valid pixels."""
    return Sum((pixel_cross_entropy(logits, targets) * weights).sum(), valid.sum())


@LOSS_REGISTRY.register()
def hard_pixel_mining(
    logits: Tensor, targets: Tensor, valid: Tensor, weights: Tensor, *, one_in: int = 5
) -> Sum:
    """The largest losses of the valid pixels; ignored pixels do not count in how many.

    Args:
        logits: see this module, as for the next three.
        targets: the same.
        valid: the same.
        weights: the same.
        one_in: of so many pixels one counts, rounded up.
    """
    losses = pixel_cross_entropy(logits, targets) * weights
    hardest, count = _hardest(losses, valid, one_in)
    kept = torch.arange(len(hardest), device=hardest.device) < count
    return Sum(torch.where(kept, hardest, 0.0).sum(), count)


@LOSS_REGISTRY.register()
def ohem(
    logits: Tensor,
    targets: Tensor,
    valid: Tensor,
    weights: Tensor,
    *,
    threshold: float = 0.7,
    one_in: int = 16,
) -> Sum:
    """Pixels that are not learned yet, or the hardest ones if those are more.

    Pixels with the loss of the hardest ones' last share the places that are left: of a batch that
    is learned to a loss of 0 no more than one in `one_in` counts, and none is picked by its place.

    Args:
        logits: see this module.
        targets: the same.
        valid: the same.
        weights: the same.
        threshold: a pixel is learned when its class has at least this probability.
        one_in: of so many pixels at least one counts, rounded up.
    """
    _require(0 < threshold <= 1, f"ohem(threshold={threshold}): a probability above 0")
    losses = pixel_cross_entropy(logits, targets)
    plain = losses.detach()
    hardest, count = _hardest(plain, valid, one_in)
    least = hardest.take((count - 1).clamp(min=0))
    # No NaN is left out by a comparison: it stays to be found.
    kept = valid & ~((plain <= -math.log(threshold)) & (plain <= least))
    tied = valid & ~kept & (plain == least)
    places = (count - kept.sum()).clamp(min=0)
    factors = torch.where(tied, places / tied.sum().clamp(min=1), kept.to(plain.dtype))
    losses = torch.where(kept | tied, losses * weights * factors, 0.0)
    return Sum(losses.sum(), kept.sum() + places)


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise ConfigError(f"MODEL.SEM_SEG_HEAD.LOSS_TYPE: {what}")


def _hardest(losses: Tensor, valid: Tensor, one_in: int) -> tuple[Tensor, Tensor]:
    """The hardest pixels in falling order, and how many of them are valid.

    Ignored pixels have a loss of 0 and so come last. The shape depends on the size of the batch
    alone, not on what is valid: nothing waits for a GPU, and a compiled graph is used again.

    Args:
        losses: any shape, >= 0.
        valid: the same, bool.
        one_in: of how many pixels one is taken.

    Returns:
        (ceil(pixels / one_in),) losses, and ceil(valid pixels / one_in), an integer scalar.
    """
    _require(one_in >= 1, f"one_in={one_in}: one of how many pixels, at least 1")
    hardest = losses.flatten().topk(-(-losses.numel() // one_in)).values
    return hardest, (valid.sum() + one_in - 1) // one_in


@LOSS_REGISTRY.register()
def focal(
    logits: Tensor, targets: Tensor, valid: Tensor, weights: Tensor, *, gamma: float = 2.0
) -> Sum:
    """Cross-entropy times (1 - p)^gamma, p the probability of the pixel's own class.

    Args:
        logits: see this module.
        targets: the same.
        valid: the same.
        weights: the same.
        gamma: at 0 it is the cross-entropy.
    """
    _require(gamma >= 0, f"focal(gamma={gamma}): at least 0")
    plain = pixel_cross_entropy(logits, targets)
    modulation = (-torch.expm1(-plain)).clamp(min=0) ** gamma
    return Sum((plain * weights * modulation).sum(), valid.sum())


@LOSS_REGISTRY.register()
def dice(logits: Tensor, targets: Tensor, valid: Tensor, weights: Tensor) -> Tensor:
    """1 - 2 |A B| / (|A| + |B|) with probabilities A and targets B, mean over occurring classes."""
    one_class = logits.shape[1] == 1
    probability = logits.sigmoid() if one_class else log_probabilities(logits).exp()
    # Without further tensors of all classes: of a thousand, each is hundreds of megabytes.
    mass = torch.einsum("nkhw,nhw->k", probability, valid.to(probability.dtype))
    members = targets == 1 if one_class else valid
    labels = targets.masked_fill(~members, len(mass))
    if one_class:
        labels = labels.masked_fill(members, 0)
    own = torch.exp(-pixel_cross_entropy(logits, targets))
    parts = torch.stack([own, torch.ones_like(own)], dim=-1).flatten(0, 2).double()
    sums = parts.new_zeros(len(mass) + 1, 2).index_add(0, labels.flatten(), parts)[:-1].float()
    overlap, area = sums.unbind(1)
    coefficient = 2 * overlap / (mass + area).clamp(min=1e-6)
    return _mean_of_present(1 - coefficient, area > 0, logits)


@LOSS_REGISTRY.register()
def lovasz(logits: Tensor, targets: Tensor, valid: Tensor, weights: Tensor) -> Tensor:
    """Lovasz extension of the Jaccard loss of each occurring class, mean (algorithm 1)."""
    # (classes, pixels); ignored pixels have an error of 0, so they come last and add nothing.
    parts = probabilities(logits, targets, valid)
    probability, target = (part.transpose(0, 1).flatten(1) for part in parts)
    target = target.to(probability.dtype)
    errors, order = (target - probability).abs().sort(dim=1, descending=True)
    target = target.gather(1, order)
    area = target.sum(dim=1, keepdim=True)
    # Jaccard loss when the first i errors are counted as mistakes.
    jaccard = 1 - (area - target.cumsum(1)) / (area + (1 - target).cumsum(1)).clamp(min=1e-6)
    steps = torch.cat([jaccard[:, :1], jaccard.diff(dim=1)], dim=1)
    return _mean_of_present((errors * steps).sum(dim=1), area[:, 0] > 0, logits)


def probabilities(logits: Tensor, targets: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities and one-hot targets (N, K, H, W), 0 and False at ignored pixels."""
    classes: Tensor | int = 1
    if logits.shape[1] == 1:
        found = logits.sigmoid()
    else:
        found = log_probabilities(logits).exp()
        classes = torch.arange(logits.shape[1], device=logits.device)[:, None, None]
    inside = valid[:, None]
    return torch.where(inside, found, 0.0), (targets[:, None] == classes) & inside


def _mean_of_present(losses: Tensor, present: Tensor, logits: Tensor) -> Tensor:
    anchor = logits.sum() * 0.0  # keeps a graph when nothing is left
    return torch.where(present, losses, 0.0).sum() / present.sum().clamp(min=1) + anchor
