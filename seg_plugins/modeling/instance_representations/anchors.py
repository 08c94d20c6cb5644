"""Anchor boxes: where they lie, which object each has to find, and how boxes are coded by them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from detectron2.structures import Boxes, pairwise_iou
from torch import Tensor

from .base import Size

# Divisors of a box's code (SSD): of its centre and of the logarithm of its sides.
VARIANCES = (0.1, 0.2)
# What an anchor has to find, if it is no object.
BACKGROUND, LEFT_OUT = -1, -2
# A side's logarithm is bounded, as in Detectron2: no box is larger than 62 of its anchor's sides.
_LARGEST = math.log(1000.0 / 16)
# Sides of a box are at least so many pixels before a logarithm is taken.
_SMALLEST = 1e-2


def anchor_sides(
    sizes: Sequence[float], ratios: Sequence[float], *, square: bool = False
) -> list[tuple[float, float]]:
    """Width and height of each anchor of a level: for each size one of each ratio.

    Args:
        sizes: roots of the areas, in pixels.
        ratios: of width to height.
        square: take the width for the height, too. The published weights of YOLACT were trained
            with such anchors.
    """
    found = []
    for size in sizes:
        for ratio in ratios:
            width = size * math.sqrt(ratio)
            found.append((width, width if square else size / math.sqrt(ratio)))
    return found


def place_anchors(
    sides: Sequence[Sequence[tuple[float, float]]],
    grids: Sequence[Size],
    size: Size,
    device: torch.device,
) -> Tensor:
    """The anchors of all levels: level by level, row by row, cell by cell.

    The cells of a grid divide the padded image evenly, as in the reference implementation.

    Args:
        sides: width and height in pixels of each anchor of a cell, for each level.
        grids: rows and columns of each level.
        size: rows and columns of the padded image.
        device: where they are wanted.

    Returns:
        (P, 4) x and y of the centres, widths, heights.
    """
    found = []
    for anchors, (rows, columns) in zip(sides, grids, strict=True):
        y = (torch.arange(rows, device=device) + 0.5) * (size[0] / rows)
        x = (torch.arange(columns, device=device) + 0.5) * (size[1] / columns)
        shape = torch.tensor(anchors, dtype=torch.float32, device=device)
        place = torch.stack([x[None].expand(rows, -1), y[:, None].expand(-1, columns)], dim=-1)
        place = place[:, :, None].expand(-1, -1, len(anchors), -1)
        found.append(torch.cat([place, shape.expand_as(place)], dim=-1).reshape(-1, 4))
    return torch.cat(found)


def corners(anchors: Tensor) -> Tensor:
    """Centres and sides (..., 4) as x0, y0, x1, y1."""
    middle, half = anchors[..., :2], anchors[..., 2:] / 2
    return torch.cat([middle - half, middle + half], dim=-1)


def encode_boxes(boxes: Tensor, anchors: Tensor) -> Tensor:
    """The code that gives each box from its anchor.

    Args:
        boxes: (N, 4) x0, y0, x1, y1.
        anchors: (N, 4) centres and sides.

    Returns:
        (N, 4): centre and logarithm of the sides, in those of the anchor, by the variances.
    """
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=_SMALLEST)
    shift = (middle - anchors[:, :2]) / (VARIANCES[0] * anchors[:, 2:])
    return torch.cat([shift, (sides / anchors[:, 2:]).log() / VARIANCES[1]], dim=1)


def decode_boxes(codes: Tensor, anchors: Tensor) -> Tensor:
    """The boxes of some codes, x0, y0, x1, y1: the inverse of :func:`encode_boxes`."""
    middle = anchors[..., :2] + codes[..., :2] * VARIANCES[0] * anchors[..., 2:]
    sides = anchors[..., 2:] * (codes[..., 2:] * VARIANCES[1]).clamp(max=_LARGEST).exp()
    return corners(torch.cat([middle, sides], dim=-1))


def match_anchors(
    anchors: Tensor, boxes: Tensor, *, foreground: float = 0.5, background: float = 0.4
) -> Tensor:
    """Which object each anchor has to find.

    An anchor takes the object of the greatest IoU if that is at least `foreground`; below
    `background` it has none; between them it is left out. In addition each object gets one anchor
    for itself, the pair of the greatest IoU first; only an object that no free anchor touches, as
    may be where there are more objects than anchors, gets none.

    Args:
        anchors: (P, 4) centres and sides.
        boxes: (n, 4) of the objects, x0, y0, x1, y1.
        foreground: least IoU of an anchor with an object.
        background: IoU with all objects below which an anchor has none.

    Returns:
        (P,) int64: the object, BACKGROUND or LEFT_OUT.
    """
    if not len(boxes):
        return torch.full((len(anchors),), BACKGROUND, device=anchors.device)
    overlap = pairwise_iou(Boxes(boxes), Boxes(corners(anchors)))
    best, owners = overlap.max(dim=0)
    owners[best < foreground] = LEFT_OUT
    owners[best < background] = BACKGROUND
    own = _own_anchors(overlap)
    has = (own >= 0).nonzero()[:, 0]
    owners[own[has]] = has
    return owners


def _own_anchors(overlap: Tensor) -> Tensor:
    """One anchor for each object, the pair of the greatest IoU first; -1 if none touches it.

    A pair that is the best of both its row and its column can be taken at once: whatever else is
    taken before it has neither of the two. So a few rounds suffice.

    Args:
        overlap: (n, P) of objects with anchors.
    """
    free, objects = overlap.clone(), torch.arange(len(overlap), device=overlap.device)
    own = torch.full_like(objects, -1)
    while True:
        value, place = free.max(dim=1)
        wants = value > 0
        if not wants.any():
            return own
        # Among equal pairs the first object wins.
        wins = wants & (free[:, place].argmax(dim=0) == objects)
        own[wins] = place[wins]
        free[wins] = 0
        free[:, place[wins]] = 0
