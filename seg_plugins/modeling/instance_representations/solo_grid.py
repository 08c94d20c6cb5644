"""The grids of SOLO: which cell is responsible for which object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Size, Truth


@dataclass(frozen=True, eq=False)
class GridTargets:
    """What the cells of one level have to find in one image.

    Attributes:
        classes: (S * S,) int64, row by row; K where a cell has no object.
        cells: (P,) the cells that have one.
        owners: (P,) which object of the image.
    """

    classes: Tensor
    cells: Tensor
    owners: Tensor


def grid_targets(
    truth: Truth,
    grids: Sequence[int],
    scale_ranges: Sequence[tuple[float, float]],
    sigma: float,
    size: Size,
    num_classes: int,
) -> list[GridTargets]:
    """The cells of each level whose object's central region covers them (SOLO, section 3.3).

    An object belongs to the levels whose range has the root of its box's area. Its central region
    is its box shrunk by `sigma` around its centre of mass; it gets the cells which that touches,
    at most 3 x 3 around the centre. A cell of two objects goes to the one of the smaller mask.

    Args:
        truth: of one image.
        grids: S of each level; cells cover the padded image.
        scale_ranges: least and greatest root of a box's area for each level, inclusive.
        sigma: share of the box.
        size: rows and columns of the padded image.
        num_classes: K.
    """
    seen = truth.areas > 0
    scales = ((truth.boxes[:, 2:] - truth.boxes[:, :2]).clamp(min=0).prod(dim=1)).sqrt()
    found = []
    for grid, (low, high) in zip(grids, scale_ranges, strict=True):
        at_level = seen & (scales >= low) & (scales <= high)
        columns = _cells(truth, 0, grid, sigma, size[1])
        rows = _cells(truth, 1, grid, sigma, size[0])
        covers = rows[:, :, None] & columns[:, None, :] & at_level[:, None, None]
        found.append(_assign(covers.flatten(1), truth, num_classes))
    return found


def _cells(truth: Truth, axis: int, grid: int, sigma: float, length: int) -> Tensor:
    """(n, S) bool: the cells along x (0) or y (1) that each object's central region touches."""
    center = truth.centers[:, axis]
    half = (truth.boxes[:, axis + 2] - truth.boxes[:, axis]).double() * sigma / 2
    # The product first: a border between two cells is then met exactly.
    middle, first, last = (
        torch.div(at * grid, length, rounding_mode="floor").clamp(0, grid - 1).long()
        for at in (center, center - half, center + half)
    )
    cells = torch.arange(grid, device=center.device)
    first, last = torch.maximum(first, middle - 1), torch.minimum(last, middle + 1)
    return (cells >= first[:, None]) & (cells <= last[:, None])


def _assign(covers: Tensor, truth: Truth, num_classes: int) -> GridTargets:
    classes = truth.classes.new_full((covers.shape[1],), num_classes)
    if not len(truth):
        none = classes.new_zeros(0)
        return GridTargets(classes, none, none)
    order = truth.areas.argsort(stable=True)
    first = covers[order].int().argmax(dim=0)  # of equal values argmax gives the first
    cells = covers.any(dim=0).nonzero()[:, 0]
    owners = order[first[cells]]
    classes[cells] = truth.classes[owners]
    return GridTargets(classes, cells, owners)
