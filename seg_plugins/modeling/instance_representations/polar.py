"""Masks as rays from a point (PolarMask, Xie et al. 2020): lengths at equal angles.

Ray k of R points at the angle 360 k / R: ray 0 down the image, a quarter later to the right. A ray
of length 0 does not meet the mask.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Places along a ray at which the mask is looked up: so fine is a ray's length.
_STEPS = 256
# Places that are looked up together, which take 16 bytes each.
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
    so is a dent (section 3.2: the longest of several lengths). A ray is looked up at 256 places
    between its point and the farthest corner of the box, so that its length is exact to 1/256 of
    that distance.

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
    height, width = masks.shape[1:]
    reach = torch.maximum((xy - boxes[:, :2]).abs(), (boxes[:, 2:] - xy).abs()).norm(dim=1)
    steps = torch.arange(_STEPS, device=xy.device)
    lengths = (steps + 0.5) / _STEPS * reach[:, None]  # (P, S)
    x, y = (
        (xy[:, axis, None, None] + lengths[:, None] * way[None, :, None]).floor().long()
        for axis, way in enumerate(directions(count, xy).unbind(dim=1))
    )  # each (P, R, S)
    seen = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    places = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
    inside = seen & masks.flatten()[places + (owners * (height * width))[:, None, None]]
    last = torch.where(inside, steps + 1, 0).amax(dim=2)
    return last / _STEPS * reach[:, None]


def polar_centerness(rays: Tensor) -> Tensor:
    """(P,) root of the shortest by the longest ray (section 3.3), of (P, R) lengths.

    A ray that does not meet the mask has no part in it: it would make the centerness 0, whatever
    the others are. Where none does it is 0.
    """
    longest = rays.amax(dim=1)
    shortest = torch.where(rays > 0, rays, longest[:, None]).amin(dim=1)
    return (shortest / longest.clamp(min=1e-6)).sqrt()


def polar_iou_losses(found: Tensor, truth: Tensor) -> Tensor:
    """(P,) ln(sum of the longer / sum of the shorter) of (P, R) lengths (section 3.4)."""
    longer = torch.maximum(found, truth).sum(dim=1)
    shorter = torch.minimum(found, truth).sum(dim=1)
    return longer.clamp(min=1e-6).log() - shorter.clamp(min=1e-6).log()
