"""Points as locations (FCOS, Tian et al. 2019): which one finds which object, and its box.

A point has the distances to the left, top, right and bottom side of a box: its *sides*.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torchvision
from torch import Tensor

from .base import Size, Truth

BOX_LOSSES = ("iou", "giou")


class Points(NamedTuple):
    """The centres of the cells of all levels, from fine to coarse, row by row.

    Attributes:
        xy: (L, 2) x, y in pixels of the padded image.
        levels: (L,) int64.
        strides: (L,) float32, pixels between two points of the level.
    """

    xy: Tensor
    levels: Tensor
    strides: Tensor


class PointOutputs(NamedTuple):
    """What the network says about the points of each level.

    Attributes:
        categories: (N, K, h, w) logits.
        centerness: (N, 1, h, w) logits.
        sides: (N, 4, h, w) pixels to the sides of the box, none negative.
        codes: (N, C, h, w) of the mask.
        shared: what the masks of an image are made of together, if anything.
    """

    categories: list[Tensor]
    centerness: list[Tensor]
    sides: list[Tensor]
    codes: list[Tensor]
    shared: Tensor | None = None


class Positives(NamedTuple):
    """The P points of a batch that have to find an object.

    Attributes:
        images: (P,) place of the image.
        places: (P,) place of the point.
        owners: (P,) which object of its image.
        xy: (P, 2) of the point.
        sides: (P, 4) to the object's box.
    """

    images: Tensor
    places: Tensor
    owners: Tensor
    xy: Tensor
    sides: Tensor


def flat(levels: Sequence[Tensor]) -> Tensor:
    """(N, L, C) float32 of all points from (N, C, h, w) of each level."""
    return torch.cat([level.float().flatten(2).transpose(1, 2) for level in levels], dim=1)


def points_of(sizes: Sequence[Size], strides: Sequence[int], device: torch.device) -> Points:
    """The points of levels of these rows and columns."""
    xy, levels, steps = [], [], []
    for level, ((rows, columns), stride) in enumerate(zip(sizes, strides, strict=True)):
        y = (torch.arange(rows, device=device) + 0.5) * stride
        x = (torch.arange(columns, device=device) + 0.5) * stride
        xy.append(
            torch.stack([x.repeat(rows), y[:, None].expand(rows, columns).reshape(-1)], dim=1)
        )
        levels.append(torch.full((rows * columns,), level, device=device))
        steps.append(torch.full((rows * columns,), float(stride), device=device))
    return Points(torch.cat(xy), torch.cat(levels), torch.cat(steps))


def assign(
    points: Points, truth: Truth, ranges: Sequence[tuple[float, float]], radius: float
) -> Tensor:
    """Which object of an image each point has to find.

    A point finds an object if it lies in the object's box, nearer to the mask's centre of mass
    than `radius` strides along x and along y, and if the longest of its sides is in the range of
    its level (FCOS, section 3.2, with the centre sampling of its extended version; the centre of
    mass as in PolarMask, section 3.2). Of several objects it finds the one of the smallest box, of
    equal ones the first. An object of a box that no point lies in, as of one of few pixels, has
    none; one without a pixel has none either.

    Args:
        points: of the padded image.
        truth: its objects.
        ranges: least and greatest longest side of each level, both inclusive.
        radius: in strides.

    Returns:
        (L,) int64: places of the objects, -1 for none.
    """
    if not len(truth):
        return points.levels.new_full((len(points.xy),), -1)
    sides = sides_of(points.xy[:, None], truth.boxes)
    longest = sides.amax(dim=2)
    low, high = longest.new_tensor(ranges)[points.levels].unbind(dim=1)
    away = (points.xy[:, None] - truth.centers).abs().amax(dim=2)
    covers = (
        (sides.amin(dim=2) > 0)
        & (away < radius * points.strides[:, None])
        & (longest >= low[:, None])
        & (longest <= high[:, None])
        & (truth.areas > 0)
    )
    order = (truth.boxes[:, 2:] - truth.boxes[:, :2]).prod(dim=1).argsort(stable=True)
    first = covers[:, order].int().argmax(dim=1)  # of equal values argmax gives the first
    return torch.where(covers.any(dim=1), order[first], -1)


def level_ranges(sizes: Sequence[float]) -> list[tuple[float, float]]:
    """The ranges of the levels between these borders: (0, a), (a, b), ... (z, infinity)."""
    return list(zip([0.0, *sizes], [*sizes, float("inf")], strict=True))


def sides_of(xy: Tensor, boxes: Tensor) -> Tensor:
    """(..., 4) left, top, right, bottom: from points (..., 2) to boxes (..., 4), x0 y0 x1 y1."""
    return torch.cat([xy - boxes[..., :2], boxes[..., 2:] - xy], dim=-1)


def boxes_of(xy: Tensor, sides: Tensor) -> Tensor:
    """(..., 4) boxes x0, y0, x1, y1 from points (..., 2) and their sides (..., 4)."""
    return torch.cat([xy - sides[..., :2], xy + sides[..., 2:]], dim=-1)


def box_losses(found: Tensor, truth: Tensor, kind: str = "iou") -> Tensor:
    """-ln IoU (UnitBox, Yu et al. 2016), or 1 - GIoU (Rezatofighi et al. 2019), of each box.

    Args:
        found: (P, 4) sides, none negative.
        truth: (P, 4) sides from the same points.
        kind: ``iou`` or ``giou``.

    Returns:
        (P,); boxes that share nothing have -ln 1e-6, or up to 2.
    """
    shared = _area(torch.minimum(found, truth))
    union = (_area(found) + _area(truth) - shared).clamp(min=1e-6)
    iou = shared / union
    if kind == "iou":
        return -iou.clamp(min=1e-6).log()
    hull = _area(torch.maximum(found, truth)).clamp(min=1e-6)
    return 1 - iou + (hull - union) / hull


def _area(sides: Tensor) -> Tensor:
    return (sides[:, 0] + sides[:, 2]) * (sides[:, 1] + sides[:, 3])


def centerness(sides: Tensor) -> Tensor:
    """(P,) from 0 at a border to 1 in the middle of a box, of (P, 4) sides (FCOS, equation 3)."""
    low = torch.minimum(sides[:, :2], sides[:, 2:]).clamp(min=0)
    high = torch.maximum(sides[:, :2], sides[:, 2:]).clamp(min=1e-6)
    return (low / high).prod(dim=1).sqrt()


def box_nms(boxes: Tensor, scores: Tensor, classes: Tensor, threshold: float, size: Size) -> Tensor:
    """Greedy NMS of the boxes of each class: places of those that stay, by falling score.

    Args:
        boxes: (N, 4) x0, y0, x1, y1; compared as cut to the image.
        scores: (N,); of equal ones the first is the better one.
        classes: (N,) int64.
        threshold: of the IoU, above which a box goes.
        size: rows and columns of the image.
    """
    # Sizes are numbers that tracing follows: neither a tensor of them nor the larger one is.
    x, y = boxes[:, 0::2].clamp(0, size[1]), boxes[:, 1::2].clamp(0, size[0])
    # Classes side by side, so far from each other that they share nothing.
    x = x + (classes * (size[1] + 1))[:, None]
    apart = torch.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], dim=1)
    return torchvision.ops.nms(apart, scores, threshold)
