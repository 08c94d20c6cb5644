"""The points of AdaptIS: drawn on objects to learn from, how good they are, where to look."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..sem_seg_heads.base import full_precision
from .base import Size, Truth


class Points(NamedTuple):
    """Points drawn in the images of a batch, P in each, image after image.

    Attributes:
        positions: (M, 2) x, y in pixels: the middle of the pixel that was drawn.
        images: (M,) int64.
        masks: (M, H, W) bool of the padded batch: the object that each lies on.
        valid: (M, H, W) bool: pixels of the image; none where the image has no object.
    """

    positions: Tensor
    images: Tensor
    masks: Tensor
    valid: Tensor

    @property
    def used(self) -> Tensor:
        """(M,) bool: the point lies on an object."""
        return self.masks.flatten(1).any(dim=1)


def draw_points(
    truths: Sequence[Truth], count: int, size: Size, *, one_object: bool = False
) -> Points:
    """Draw objects of each image, and a pixel of each, all objects and pixels alike.

    An image without objects gets points in its corner that belong to nothing: every batch has the
    same number of them, and they have no part in the losses.

    Args:
        truths: of each image.
        count: points of an image, P.
        size: rows and columns of the padded batch.
        one_object: all points of an image on the same object.
    """
    positions, masks, valid = [], [], []
    for truth in truths:
        height, width = truth.image_size
        device = truth.classes.device
        pad = (0, size[1] - width, 0, size[0] - height)
        present = (truth.areas > 0).nonzero()[:, 0]
        if not len(present):
            nothing = torch.zeros(count, *size, dtype=torch.bool, device=device)
            masks.append(nothing)
            valid.append(nothing)
            positions.append(torch.full((count, 2), 0.5, device=device))
            continue
        draws = torch.randint(len(present), (1 if one_object else count,), device=device)
        chosen = present[draws].expand(count)
        objects = truth.bitmasks[chosen]
        pixels = _draw_pixels(objects.flatten(1), truth.areas[chosen])
        rows = torch.div(pixels, width, rounding_mode="floor")
        positions.append(torch.stack([pixels % width, rows], dim=1) + 0.5)
        masks.append(F.pad(objects, pad))
        valid.append(F.pad(torch.ones_like(objects), pad))
    images = torch.arange(len(truths), device=positions[0].device).repeat_interleave(count)
    return Points(torch.cat(positions), images, torch.cat(masks), torch.cat(valid))


def _draw_pixels(masks: Tensor, areas: Tensor) -> Tensor:
    """(M,) a pixel of each mask (M, L), all of a mask equally likely; without a host sync."""
    which = (torch.rand(len(areas), device=areas.device, dtype=torch.float64) * areas).long()
    which = torch.minimum(which, areas - 1) + 1
    counts = masks.cumsum(dim=1, dtype=torch.int32)
    return torch.searchsorted(counts, which[:, None].to(torch.int32))[:, 0]


def normalized_focal_losses(
    logits: Tensor, targets: Tensor, valid: Tensor, *, alpha: float = 0.25, gamma: float = 2.0
) -> Tensor:
    """The focal loss, scaled so that its weights sum to the number of pixels (Sofiiuk et al. 2019).

    A pixel whose truth has the probability p weighs (1 - p)^gamma; without the scale a mask that
    is nearly right would hardly be learned from. The scale counts as a constant.

    Args:
        logits: (M, H, W).
        targets: (M, H, W) bool.
        valid: (M, H, W) bool: pixels that count.
        alpha: factor of the object's pixels, 1 - alpha of all others.
        gamma: exponent.

    Returns:
        (M,) float32, the mean over the pixels; 0 where none counts.
    """
    with full_precision(logits):
        logits, truth = logits.float(), targets.float()
        plain = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        # 1 - p of the truth, from the cross-entropy: exact where that is near 0.
        weights = (-torch.expm1(-plain)) ** gamma * valid
        total = weights.flatten(1).sum(dim=1).detach()
        factors = weights * torch.where(targets, alpha, 1 - alpha)
        # (number of pixels / sum of weights) * the mean over the pixels.
        return (factors * plain).flatten(1).sum(dim=1) / (total + 1e-12)


def point_labels(
    probabilities: Tensor, masks: Tensor, *, threshold: float = 0.5, bad_percentile: float = 30.0
) -> tuple[Tensor, Tensor]:
    """How good the points of an object are, from the masks that they give.

    A point's quality is the IoU of its mask with the object, times the mean probability on the
    object. The worst third or so of an object's points are bad (0); the others go from 0.7 to 1
    by quality. Where the masks are alike all are good, as in the reference implementation.

    Args:
        probabilities: (O, P, H, W) of the masks of P points on each of O objects.
        masks: (O, P, H, W) bool, the object.
        threshold: of a mask's pixels.
        bad_percentile: points below this percentile of quality, times 0.95, are bad.

    Returns:
        (O, P) labels, and (O,) bool: objects that some point finds; others teach nothing.
    """
    probabilities, masks = probabilities.float().flatten(2), masks.flatten(2)
    found = probabilities > threshold
    union = (found | masks).sum(dim=2).clamp(min=1)
    overlap = (found & masks).sum(dim=2) / union
    certainty = (probabilities * masks).sum(dim=2) / masks.sum(dim=2).clamp(min=1)
    quality = overlap * certainty
    differ = overlap.amax(dim=1) - overlap.amin(dim=1) > 0.1
    least = torch.where(
        differ,
        torch.quantile(quality, bad_percentile / 100, dim=1) * 0.95,
        quality.amin(dim=1) * 0.99,
    )
    good = quality > least[:, None]
    best = quality.amax(dim=1, keepdim=True)
    worst = torch.where(good, quality, best).amin(dim=1, keepdim=True)
    spread = best - worst
    graded = 0.7 + 0.3 * (quality - worst) / spread.clamp(min=1e-3)
    labels = torch.where(spread > 1e-3, graded, 1.0) * good
    return labels, overlap.amax(dim=1) > 1e-5


def candidate_points(
    proposals: Tensor,
    of_things: Tensor,
    image_size: Size,
    *,
    stride: int,
    proposal_threshold: float,
    thing_threshold: float,
    limit: int,
) -> tuple[Tensor, Tensor]:
    """Where an object may lie: the local maxima of the proposals on things, the best of them.

    Args:
        proposals: (h, w) logits of one padded image.
        of_things: (K, H, W) probabilities of the labels of things.
        image_size: rows and columns without padding.
        stride: of the proposals.
        proposal_threshold: least probability, exclusive; the best candidate may have less.
        thing_threshold: least probability of all things together, mean over the cell.
        limit: points at most; tracing gives so many always.

    Returns:
        Points (P, 2) x, y in pixels, the middle of their cells, and their probabilities (P,), from
        high to low.
    """
    rows, columns = proposals.shape
    things = F.avg_pool2d(of_things.sum(dim=0)[None, None], stride)[0, 0]
    y = (torch.arange(rows, device=proposals.device) + 0.5) * stride
    x = (torch.arange(columns, device=proposals.device) + 0.5) * stride
    allowed = (y < image_size[0])[:, None] & (x < image_size[1]) & (things >= thing_threshold)
    # Of logits: probabilities near 1 are all alike in float32.
    logits = proposals.float()
    highest = F.max_pool2d(logits[None, None], 3, stride=1, padding=1)[0, 0]
    peaks = torch.where(allowed & (logits == highest), logits, -math.inf).flatten()
    if torch.jit.is_tracing():  # a map of fewer cells has its last one again, which is no peak
        values, cells = F.pad(peaks, (0, limit), value=-math.inf).topk(limit)
        values, cells = values.sigmoid(), torch.clamp(cells, max=rows * columns - 1)
    else:
        values, cells = peaks.topk(min(limit, rows * columns))
        values = values.sigmoid()
        likely = values > proposal_threshold
        likely[0] = True  # so that there is one
        values, cells = values[likely], cells[likely]
    return torch.stack([x[cells % columns], y[cells // columns]], dim=1), values
