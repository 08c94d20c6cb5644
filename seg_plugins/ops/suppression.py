"""Suppression of instances that were found twice: matrix, Fast and mask NMS, and by occupancy.

All run on the device of their tensors, whichever it is, and the host waits for nothing, however
many instances there are; tracing can follow those that keep a fixed order. Instances of distinct
classes never touch each other, except in :func:`occupancy_suppression`, which knows no classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .precision import widest_float

__all__ = [
    "falling",
    "fast_nms",
    "fast_nms_of_classes",
    "mask_iou_matrix",
    "mask_nms",
    "matrix_nms",
    "occupancy_suppression",
]


def falling(scores: Tensor) -> Tensor:
    """Places of (..., N) scores from the highest to the lowest, the first of equal ones first."""
    if torch.onnx.is_in_onnx_export():  # TopK, which the sort becomes, is stable
        return scores.sort(descending=True).indices
    return scores.sort(descending=True, stable=True).indices


def mask_iou_matrix(masks: Tensor) -> Tensor:
    """Intersection over union of every pair of masks.

    Args:
        masks: (N, H, W) bool.

    Returns:
        (N, N) float32; 0 for two empty masks.
    """
    flat = masks.flatten(1).float()
    with torch.autocast(flat.device.type, enabled=False):
        shared = flat @ flat.transpose(0, 1)  # sums of ones: exact below 2^24 pixels
    areas = flat.sum(dim=1)
    return shared / (areas[:, None] + areas - shared).clamp(min=1)


def matrix_nms(
    masks: Tensor,
    scores: Tensor,
    classes: Tensor,
    *,
    kernel: str = "gaussian",
    sigma: float = 2.0,
) -> Tensor:
    """Lower the scores of masks by how much better masks of their class cover them.

    The decay of mask j is the minimum over the better masks i of f(IoU(i, j)) / f(the largest IoU
    of i with a mask better than itself), f(x) = exp(-sigma x^2) or 1 - x (Wang et al. 2020, SOLOv2,
    section 3.3). A mask i that equals a better one says nothing that the better one does not: with
    the linear kernel, where its f is 0, it is left out.

    Args:
        masks: (N, H, W) bool.
        scores: (N,), in any order; among equal scores the first is the better one.
        classes: (N,) int64.
        kernel: ``gaussian`` or ``linear``.
        sigma: of the Gaussian.

    Returns:
        (N,) scores, in the order of `scores`.

    Raises:
        ValueError: an unknown kernel.
    """
    if kernel not in ("gaussian", "linear"):
        raise ValueError(f"the kernel is 'gaussian' or 'linear', not {kernel!r}")
    order = falling(scores)
    # Row i, column j > i: what the better mask i shares with j.
    overlap = _of_one_class(mask_iou_matrix(masks[order]), classes[order])
    worst = F.pad(overlap, (0, 0, 1, 0)).amax(dim=0)  # a row more: there may be no mask
    if kernel == "gaussian":
        decay = torch.exp(-sigma * (overlap**2 - worst[:, None] ** 2))
    else:
        own = 1 - worst[:, None]
        decay = torch.where(own > 0, (1 - overlap) / own.clamp(min=1e-12), 1.0)
    # Only the better masks count, and no score rises.
    decay = torch.where(overlap > 0, decay, 1.0).clamp(max=1)
    factor = F.pad(decay, (0, 0, 1, 0), value=1.0).amin(dim=0)
    return scores * factor[falling(-order)].to(scores.dtype)


def fast_nms(boxes: Tensor, scores: Tensor, classes: Tensor, threshold: float) -> Tensor:
    """Which boxes stay when each is compared with all better ones of its class at once.

    Greedy NMS, but a box that is dropped itself still drops others (Bolya et al. 2019, YOLACT,
    section 3.4).

    Args:
        boxes: (N, 4) x0, y0, x1, y1.
        scores: (N,), in any order; among equal scores the first is the better one.
        classes: (N,) int64.
        threshold: a box goes when its IoU with a better one is above it.

    Returns:
        (N,) bool, in the order of `boxes`.
    """
    order = falling(scores)
    overlap = _of_one_class(box_iou_matrix(boxes[order]), classes[order])
    kept = (overlap <= threshold).all(dim=0)
    return kept[falling(-order)]


def fast_nms_of_classes(boxes: Tensor, threshold: float) -> Tensor:
    """:func:`fast_nms` of each class by itself: K small matrices in place of a large one.

    Args:
        boxes: (K, N, 4) the boxes of each class by falling score.
        threshold: see :func:`fast_nms`.

    Returns:
        (K, N) bool.
    """
    return (box_iou_matrix(boxes).triu(diagonal=1) <= threshold).all(dim=1)


def mask_nms(masks: Tensor, scores: Tensor, classes: Tensor, threshold: float) -> Tensor:
    """Greedy NMS on masks: a mask goes when a better one of its class that stays overlaps it.

    Args:
        masks: (N, H, W) bool.
        scores: (N,), in any order; among equal scores the first is the better one.
        classes: (N,) int64.
        threshold: of the IoU, above which a mask goes.

    Returns:
        (N,) bool, in the order of `masks`.
    """
    order = falling(scores)
    over = _of_one_class(mask_iou_matrix(masks[order]), classes[order]) > threshold
    gone = torch.zeros_like(order, dtype=torch.bool)
    for i in range(len(over)):
        gone = gone | (over[i] & ~gone[i])
    return ~gone[falling(-order)]


def occupancy_suppression(
    masks: Tensor,
    scores: Tensor,
    *,
    min_area: int = 10,
    max_taken: float = 0.4,
    points: Tensor | None = None,
) -> Tensor:
    """Which masks count when they take their pixels one after the other, by falling score.

    A mask counts if it is large enough and too little of it is taken by those that counted before
    it (Sofiiuk et al. 2019, AdaptIS). The classes do not matter.

    Args:
        masks: (N, H, W) bool.
        scores: (N,), in any order; among equal scores the first is the better one.
        min_area: least pixels of a mask.
        max_taken: a mask goes when at least this share of it is taken.
        points: (N,) int64, row by row, the pixel that each mask was asked for; a mask goes when it
            is taken. Default: not looked at.

    Returns:
        (N,) bool, in the order of `masks`.
    """
    order = falling(scores)
    flat = masks[order].flatten(1)
    areas = flat.sum(dim=1)
    allowed = areas >= min_area
    # In float64 a share of exactly `max_taken` is met exactly.
    sizes = areas.clamp(min=1).to(widest_float(areas.device))
    starts = points[order] if points is not None else None
    taken = torch.zeros_like(flat.any(dim=0))
    kept = []
    for i in range(len(flat)):
        counts = allowed[i] & ((flat[i] & taken).sum() / sizes[i] < max_taken)
        if starts is not None:  # an index of one element: a scalar one would wait for the device
            counts = counts & ~taken[starts[i : i + 1]].squeeze(0)
        taken = taken | (flat[i] & counts)
        kept.append(counts)
    stay = torch.stack(kept) if kept else allowed
    return stay[falling(-order)]


def box_iou_matrix(boxes: Tensor) -> Tensor:
    """Intersection over union of every pair of boxes; 0 for two empty boxes.

    Args:
        boxes: (..., N, 4) x0, y0, x1, y1.

    Returns:
        (..., N, N) float32.
    """
    boxes = boxes.float()
    low = torch.maximum(boxes[..., :, None, :2], boxes[..., None, :, :2])
    high = torch.minimum(boxes[..., :, None, 2:], boxes[..., None, :, 2:])
    both = (high - low).clamp(min=0)
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    shared, areas = both[..., 0] * both[..., 1], sides[..., 0] * sides[..., 1]
    union = areas[..., :, None] + areas[..., None, :] - shared
    return torch.where(union > 0, shared / union.clamp(min=1e-12), 0.0)


def _of_one_class(overlap: Tensor, classes: Tensor) -> Tensor:
    """Overlaps with the better instances of the same class: above the diagonal, else 0."""
    return (overlap * (classes[:, None] == classes)).triu(diagonal=1)
