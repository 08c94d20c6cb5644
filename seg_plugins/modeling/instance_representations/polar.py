"""Masks as rays from a point (PolarMask, Xie et al. 2020): lengths at equal angles.

Ray k of R points at the angle 360 k / R: ray 0 down the image, a quarter later to the right. A ray
of length 0 does not meet the mask.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Places along a ray at which the mask is looked up; then between the last one inside and the next.
_STEPS, _PARTS = 64, 8
# Places that are looked up together.
_AT_ONCE = 1 << 22


def directions(count: int, like: Tensor) -> Tensor:
    """(R, 2) x, y of unit rays."""
    angles = torch.arange(count, device=like.device, dtype=like.dtype) * (2 * math.pi / count)
    return torch.stack([angles.sin(), angles.cos()], dim=1)


def outlines(xy: Tensor, rays: Tensor) -> Tensor:
    """(P, R, 2) x, y of the rays' ends, from points (P, 2) and lengths (P, R)."""
    return xy[:, None] + rays[:, :, None] * directions(rays.shape[1], xy)


def rays_of(masks: Tensor, boxes: Tensor, owners: Tensor, xy: Tensor, count: int) -> Tensor:
    """How far each ray goes until it leaves the mask for the last time.

    What of the mask is nearer, or lies outside it for a while, is not seen: a hole is filled, and
    so is a dent (section 3.2: the longest of several lengths). A ray is looked up at 64 places
    between its point and the farthest corner of the box, and at 8 behind the last one that is
    inside: its length is exact to 1/1024 of that distance, unless a part of the mask beyond is
    narrower than 1/64 of it.

    Args:
        masks: (n, height, width) bool.
        boxes: (n, 4) x0, y0, x1, y1 around them.
        owners: (P,) the mask of each point.
        xy: (P, 2) points.
        count: R.

    Returns:
        (P, R) lengths in pixels; 0 where a ray does not meet the mask.
    """
    if not len(xy):
        return xy.new_zeros(0, count)
    at_once = max(_AT_ONCE // (count * _STEPS), 1)
    parts = zip(owners.split(at_once), xy.split(at_once), strict=True)
    return torch.cat([_rays(masks, boxes[own], own, place, count) for own, place in parts])


def _rays(masks: Tensor, boxes: Tensor, owners: Tensor, xy: Tensor, count: int) -> Tensor:
    reach = torch.maximum((xy - boxes[:, :2]).abs(), (boxes[:, 2:] - xy).abs()).norm(dim=1)
    step = (reach / _STEPS)[:, None, None]
    steps = torch.arange(_STEPS, device=xy.device)
    last = _last_inside(masks, owners, xy, (steps + 0.5) * step, count)
    # From that place to the next.
    start = (last[:, :, None] - 0.5) * step
    parts = (torch.arange(_PARTS, device=xy.device) + 0.5) / _PARTS
    more = _last_inside(masks, owners, xy, start + parts * step, count)
    lengths = start[:, :, 0] + more / _PARTS * step[:, :, 0]
    return torch.where(last > 0, lengths, 0.0)


def _last_inside(masks: Tensor, owners: Tensor, xy: Tensor, lengths: Tensor, count: int) -> Tensor:
    """(P, R): which of the lengths (P, R or 1, S) is the last one in the mask, from 1; 0: none."""
    height, width = masks.shape[1:]
    ways = directions(count, xy)[:, None]  # (R, 1, 2)
    x = (xy[:, 0, None, None] + lengths * ways[..., 0]).floor().int()
    y = (xy[:, 1, None, None] + lengths * ways[..., 1]).floor().int()
    seen = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    places = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
    inside = masks.flatten()[places + (owners * (height * width))[:, None, None]] & seen
    order = torch.arange(1, lengths.shape[2] + 1, device=xy.device)
    return torch.where(inside, order, 0).amax(dim=2)


def polar_centerness(rays: Tensor) -> Tensor:
    """(P,) root of the shortest by the longest ray (section 3.3), of (P, R) lengths.

    A ray that does not meet the mask would make the centerness 0, whatever the others are. It is
    left out, and the root is multiplied with the share of those that do meet it: a point beside
    a mask is no centre of it.
    """
    met, longest = rays > 0, rays.amax(dim=1)
    shortest = torch.where(met, rays, longest[:, None]).amin(dim=1)
    return (shortest / longest.clamp(min=1e-6)).sqrt() * met.float().mean(dim=1)


def polar_iou_losses(found: Tensor, truth: Tensor) -> Tensor:
    """(P,) ln(sum of the longer / sum of the shorter) of (P, R) lengths (section 3.4)."""
    longer = torch.maximum(found, truth).sum(dim=1)
    shorter = torch.minimum(found, truth).sum(dim=1)
    return longer.clamp(min=1e-6).log() - shorter.clamp(min=1e-6).log()
