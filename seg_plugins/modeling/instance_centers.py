"""Instances as centres and offsets to them (Cheng et al. 2020, Panoptic-DeepLab).

Coordinates are (y, x) in pixels; pixel (i, j) lies at (i, j).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Pixels grouped at a time on a CPU: as many as its cache holds.
_PIXELS = 1 << 15


class CenterTargets(NamedTuple):
    """What the centre head learns from one image.

    Attributes:
        heatmap: (H, W) float32, 1 at each centre, falling off as a Gaussian.
        offsets: (2, H, W) float32, from each pixel of an instance to its centre; 0 elsewhere.
        inside: (H, W) bool, pixels of instances.
        areas: (H, W) float32, pixels of the instance that a pixel belongs to; 0 elsewhere.
    """

    heatmap: Tensor
    offsets: Tensor
    inside: Tensor
    areas: Tensor


def center_targets(masks: Tensor, sigma: float) -> CenterTargets:
    """Targets from the instances of one image.

    Args:
        masks: (N, H, W) bool; where they overlap, a pixel belongs to the last.
        sigma: of the bumps, in pixels; they end at 3 sigma + 1.
    """
    _, height, width = masks.shape
    device = masks.device
    ys = torch.arange(height, dtype=torch.float64, device=device)
    xs = torch.arange(width, dtype=torch.float64, device=device)
    areas = masks.sum(dim=(1, 2), dtype=torch.float64)
    center_y = (masks.sum(dim=2) * ys).sum(dim=1) / areas.clamp(min=1)
    center_x = (masks.sum(dim=1) * xs).sum(dim=1) / areas.clamp(min=1)
    heatmap = torch.zeros(height, width, device=device)
    present = areas > 0
    rows = _bump(ys, center_y, sigma) * present[:, None]
    columns = _bump(xs, center_x, sigma)
    for row, column in zip(rows, columns, strict=True):
        heatmap = torch.maximum(heatmap, row[:, None] * column)
    # The instance of each pixel, counted from 1, and 0 for none.
    numbers = torch.arange(1, len(masks) + 1, dtype=torch.int16, device=device)
    owners = masks * numbers[:, None, None]
    owner = F.pad(owners, (0, 0, 0, 0, 1, 0)).amax(dim=0).long()
    y, x, area = (F.pad(v.float(), (1, 0))[owner] for v in (center_y, center_x, areas))
    inside = owner > 0
    offsets = torch.stack([y - ys.float()[:, None], x - xs.float()]) * inside
    return CenterTargets(heatmap, offsets, inside, area)


def _bump(positions: Tensor, centers: Tensor, sigma: float) -> Tensor:
    """(N, L) float32: a Gaussian around each centre's nearest pixel."""
    distance = positions - centers.round()[:, None]
    bump = torch.exp(-(distance**2) / (2 * sigma**2))
    return torch.where(distance.abs() <= 3 * sigma + 1, bump, 0.0).float()


def find_centers(heatmap: Tensor, threshold: float, nms_kernel: int, top_k: int) -> Tensor:
    """Local maxima of the heatmap.

    Args:
        heatmap: (H, W).
        threshold: least value of a centre, exclusive.
        nms_kernel: odd side of the window in which a centre is the maximum.
        top_k: only values above the `top_k`-th largest.

    Returns:
        (K, 2) int64, in the order of rows.
    """
    values = F.threshold(heatmap, threshold, -1)
    highest = F.max_pool2d(values[None], nms_kernel, stride=1, padding=nms_kernel // 2)[0]
    values = torch.where(values == highest, values, -1)
    least = values.flatten().topk(min(top_k, values.numel())).values[-1].clamp(min=0)
    return torch.nonzero(values > least)


def group_pixels(centers: Tensor, offsets: Tensor, inside: Tensor) -> Tensor:
    """The centre nearest to where each pixel points.

    Args:
        centers: (K, 2).
        offsets: (2, H, W).
        inside: (H, W) bool, the pixels to group.

    Returns:
        (H, W) int64: 1 + index of the centre; 0 outside, or where there is no centre.
    """
    found = torch.zeros(inside.shape, dtype=torch.int64, device=inside.device)
    pixels = inside.nonzero()
    targets = pixels + offsets[:, pixels[:, 0], pixels[:, 1]].T
    size = _PIXELS if inside.device.type == "cpu" else max(len(targets), 1)
    found[inside] = torch.cat([_nearest(part, centers.float()) for part in targets.split(size)])
    return found


def _nearest(points: Tensor, centers: Tensor) -> Tensor:
    """1 + index of the centre (K, 2) nearest to each point (P, 2); 0 without centres.

    One centre after the other, so that no (K, P) distances are held.
    """
    ys, xs = points.T.contiguous()
    nearest = torch.zeros(len(points), dtype=torch.int64, device=points.device)
    least = torch.full_like(ys, torch.inf)
    for k, (y, x) in enumerate(zip(*centers.T, strict=True), start=1):
        distance = (ys - y).square_() + (xs - x).square_()
        nearest.masked_fill_(distance < least, k)
        torch.minimum(least, distance, out=least)
    return nearest


class BottomUpSegments(NamedTuple):
    """Segments of one image, in the order of their ids from 1 on: things, then stuff.

    Attributes:
        ids: (H, W) int32; 0 is void.
        labels: (S,) int64, the label of each segment.
        areas: (S,) int64 pixels.
        num_things: how many of them are things.
        centers: (num_things, 2) int64.
    """

    ids: Tensor
    labels: Tensor
    areas: Tensor
    num_things: int
    centers: Tensor


def segments_from_centers(
    labels: Tensor,
    heatmap: Tensor,
    offsets: Tensor,
    num_labels: int,
    thing_ids: Sequence[int],
    *,
    stuff_area: int,
    threshold: float,
    nms_kernel: int,
    top_k: int,
) -> BottomUpSegments:
    """Group the pixels of things by centre; each group takes the label of most of its pixels.

    Args:
        labels: (H, W) int64 semantic labels.
        heatmap: (H, W) of centres.
        offsets: (2, H, W) pixels.
        num_labels: number of labels K.
        thing_ids: labels of things.
        stuff_area: stuff of fewer pixels becomes void.
        threshold: see :func:`find_centers`.
        nms_kernel: see :func:`find_centers`.
        top_k: see :func:`find_centers`.
    """
    is_thing = torch.zeros(num_labels, dtype=torch.bool, device=labels.device)
    is_thing[list(thing_ids)] = True
    centers = find_centers(heatmap, threshold, nms_kernel, top_k)
    groups = group_pixels(centers, offsets, is_thing[labels])
    # Pixels of each group (0: none) by label, in one pass.
    votes = torch.bincount((groups * num_labels + labels).flatten(),
                           minlength=(len(centers) + 1) * num_labels)  # fmt: skip
    votes = votes.reshape(-1, num_labels)
    stuff_areas = votes[0] * ~is_thing
    things, majority = votes[1:].sum(dim=1), votes[1:].argmax(dim=1)
    areas = torch.cat([things, stuff_areas])
    # Stuff that is not there at all is no segment, however small the threshold.
    kept = torch.cat([things > 0, (stuff_areas >= max(stuff_area, 1))])
    numbers = (kept.cumsum(0) * kept).to(torch.int32)
    of_groups = F.pad(numbers[: len(centers)], (1, 0))
    ids = torch.where(groups > 0, of_groups[groups], numbers[len(centers) :][labels])
    segment_labels = torch.cat([majority, torch.arange(num_labels, device=labels.device)])[kept]
    chosen = things > 0
    return BottomUpSegments(ids, segment_labels, areas[kept], int(chosen.sum()), centers[chosen])
