"""The losses of YOLACT: each a sum, to be divided by the anchors that have an object."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..sem_seg_heads.base import full_precision
from .anchors import BACKGROUND


def mined_cross_entropy(logits: Tensor, classes: Tensor, ratio: int) -> Tensor:
    """The sum of cross-entropies over anchors with an object and the hardest without (SSD).

    Of each image, so many anchors without an object count as `ratio` times those with one: those
    with the least probability of the background. An image without objects has no loss.

    Args:
        logits: (N, P, 1 + K), of which the first is the background.
        classes: (N, P) int64: 0 background, from 1 objects, below 0 left out.
        ratio: negatives by positive.
    """
    with full_precision(logits):
        losses = F.cross_entropy(
            logits.float().transpose(1, 2), classes.clamp(min=0), reduction="none"
        )
        positive, negative = classes > 0, classes == 0
        hardness = torch.where(negative, losses.detach(), -1.0)
        order = hardness.argsort(dim=1, descending=True, stable=True)
        rank = torch.empty_like(order).scatter_(
            1, order, torch.arange(order.shape[1], device=order.device).expand_as(order)
        )
        mined = negative & (rank < ratio * positive.sum(dim=1, keepdim=True))
        return torch.where(positive | mined, losses, 0.0).sum()


def inside_boxes(boxes: Tensor, size: tuple[int, int], margin: float = 1.0) -> Tensor:
    """Which cells of a map a mask may have: those of its box and one more all round.

    Args:
        boxes: (M, 4) x0, y0, x1, y1 in cells.
        size: rows and columns of the map.
        margin: cells more on each side.

    Returns:
        (M, rows, columns) bool.
    """
    x0, y0, x1, y1 = (part[:, None] for part in boxes.unbind(1))
    columns = torch.arange(size[1], device=boxes.device)
    rows = torch.arange(size[0], device=boxes.device)
    across = (columns >= x0 - margin) & (columns < x1 + margin)
    down = (rows >= y0 - margin) & (rows < y1 + margin)
    return down[:, :, None] & across[:, None, :]


def cropped_mask_losses(logits: Tensor, targets: Tensor, boxes: Tensor) -> Tensor:
    """Binary cross-entropy inside the box and one cell around it, by the box's area.

    Args:
        logits: (M, h, w).
        targets: (M, h, w), 0 or 1.
        boxes: (M, 4) of the objects, in cells of the maps. One below a cell counts as one: else
            the loss of an object of one pixel would have sixteen times its weight at stride 4.

    Returns:
        (M,) float32.
    """
    with full_precision(logits):
        plain = F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none")
        inside = inside_boxes(boxes, (logits.shape[-2], logits.shape[-1]))
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).clamp(min=1)
        return (plain * inside).flatten(1).sum(dim=1) / areas


def semantic_loss(logits: Tensor, masks: Tensor, classes: Tensor, size: tuple[int, int]) -> Tensor:
    """Binary cross-entropy of every class in every cell of an image, a mean over the cells.

    Args:
        logits: (K, h, w), of the padded image.
        masks: (n, h, w) of the objects, 0 or 1.
        classes: (n,) int64.
        size: rows and columns of the cells that the image without its padding touches.
    """
    with full_precision(logits):
        members = F.one_hot(classes, len(logits)).to(masks.dtype)
        target = (members.T @ masks.flatten(1)).clamp(max=1).reshape(logits.shape)
        plain = F.binary_cross_entropy_with_logits(logits.float(), target, reduction="none")
        return plain[:, : size[0], : size[1]].sum() / (size[0] * size[1])


def anchor_classes(owners: Tensor, classes: Tensor) -> Tensor:
    """What :func:`mined_cross_entropy` wants, from :func:`~.anchors.match_anchors`.

    Args:
        owners: (P,) int64.
        classes: (n,) of the objects, from 0.
    """
    if not len(classes):
        return torch.where(owners == BACKGROUND, 0, -1)
    of_object = classes[owners.clamp(min=0)] + 1
    return torch.where(owners >= 0, of_object, torch.where(owners == BACKGROUND, 0, -1))
