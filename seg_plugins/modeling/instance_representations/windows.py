"""Sliding windows: their places, which object each has, and masks assembled from their parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Size, Truth

# What a window has, if it is no object.
BACKGROUND, LEFT_OUT = -1, -2


def parts_of(window: int, parts: int) -> Tensor:
    """The part of its object that each cell of a window shows (Dai et al. 2016, section 3.1).

    Row i belongs to the part floor(parts * i / window), columns alike: where `parts` does not
    divide `window`, the runs differ by one cell (5 parts of 21 cells: 5, 4, 4, 4, 4).

    Args:
        window: cells along its side, m.
        parts: along its side, k.

    Returns:
        (m, m) int64 from 0 to k * k - 1, row by row.
    """
    along = torch.arange(window) * parts // window
    return along[:, None] * parts + along


@dataclass(frozen=True)
class Windows:
    """A window around each cell of some maps: level by level, row by row.

    Its first cell is `side // 2` rows above and columns left of that cell.

    Attributes:
        side: cells along the side, m.
        row: (P,) int64 of the first cell; may be negative.
        column: the same.
        rows: (P,) of its level.
        columns: the same.
        start: (P,) number of its level's first cell among the cells of all levels.
        stride: (P,) pixels by cell.
    """

    side: int
    row: Tensor
    column: Tensor
    rows: Tensor
    columns: Tensor
    start: Tensor
    stride: Tensor

    @classmethod
    def of(
        cls, side: int, grids: Sequence[Size], strides: Sequence[int], device: torch.device
    ) -> Windows:
        """The windows of levels with so many rows and columns and these strides."""
        found: list[list[Tensor]] = []
        start = 0
        for (rows, columns), stride in zip(grids, strides, strict=True):
            cells = torch.arange(rows * columns, device=device)
            one = torch.ones_like(cells)
            row = torch.div(cells, columns, rounding_mode="floor") - side // 2
            column = cells % columns - side // 2
            found.append([row, column, one * rows, one * columns, one * start, one * stride])
            start += rows * columns
        return cls(side, *(torch.cat(parts) for parts in zip(*found, strict=True)))

    def __getitem__(self, index: Tensor) -> Windows:
        fields = (self.row, self.column, self.rows, self.columns, self.start, self.stride)
        return Windows(self.side, *(field[index] for field in fields))

    @property
    def corners(self) -> Tensor:
        """(P, 2) row and column of the first cell."""
        return torch.stack([self.row, self.column], dim=1)

    @property
    def centers(self) -> Tensor:
        """(P, 2) x and y in pixels."""
        middle = torch.stack([self.column, self.row], dim=1) + self.side / 2
        return middle * self.stride[:, None]

    def places(self) -> tuple[Tensor, Tensor]:
        """(P, m) rows and columns of the cells in their level; may be outside."""
        along = torch.arange(self.side, device=self.row.device)
        return self.row[:, None] + along, self.column[:, None] + along


def assemble(maps: Tensor, windows: Windows, parts: Tensor) -> Tensor:
    """The masks of some windows: each cell from the map of the part that it shows there.

    Args:
        maps: (k * k, cells of all levels) instance-sensitive score maps.
        windows: N of them.
        parts: see :func:`parts_of`.

    Returns:
        (N, m, m). Cells outside the map have the value of the nearest one inside, so that a mask
        does not fade towards the image's border.
    """
    row, column = windows.places()
    row = torch.minimum(row.clamp(min=0), windows.rows[:, None] - 1)
    column = torch.minimum(column.clamp(min=0), windows.columns[:, None] - 1)
    line = windows.start[:, None] + row * windows.columns[:, None]
    cells = line[:, :, None] + column[:, None, :]
    return maps.flatten()[parts * maps.shape[1] + cells]


def match_windows(
    windows: Windows,
    boxes: Tensor,
    *,
    positive_offset: float,
    positive_sizes: Sequence[float],
    negative_offset: float,
    negative_sizes: Sequence[float],
) -> Tensor:
    """Which object each window has to show (Pinheiro et al. 2015, DeepMask, section 3.1).

    Args:
        windows: P of them.
        boxes: (n, 4) of the objects, x0, y0, x1, y1.
        positive_offset: a window has an object whose centre is at most so far from its own, along
            x and y, in sides of the window, and of several the one with the nearest centre.
        positive_sizes: least and greatest longer side of that object, in sides of the window.
        negative_offset: a window has none if each is farther than this,
        negative_sizes: or its longer side is not in this range.

    Returns:
        (P,) int64: the object, BACKGROUND or LEFT_OUT.
    """
    count = len(windows.row)
    if not len(boxes):
        return torch.full((count,), BACKGROUND, device=windows.row.device)
    side = (windows.stride * windows.side).float()[:, None]
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    offset = (windows.centers[:, None] - middles).abs().amax(dim=2) / side
    size = (boxes[:, 2:] - boxes[:, :2]).amax(dim=1) / side

    def near(limit: float, sizes: Sequence[float]) -> Tensor:
        return (offset <= limit) & (size >= sizes[0]) & (size <= sizes[1])

    shows = near(positive_offset, positive_sizes)
    close = near(negative_offset, negative_sizes) | shows
    nearest = torch.where(shows, offset, torch.inf).argmin(dim=1)
    owners = torch.where(close.any(dim=1), LEFT_OUT, BACKGROUND)
    return torch.where(shows.any(dim=1), nearest, owners)


def window_targets(
    windows: Windows, owners: Tensor, truth: Truth, stride: int
) -> tuple[Tensor, Tensor]:
    """The masks that windows of one level have to show, and which cells count.

    Args:
        windows: N, all of a level.
        owners: (N,) the object of each.
        truth: of the image.
        stride: of the level.

    Returns:
        (N, m, m) masks, 0 or 1, and (N, m, m) bool: cells that the image touches.
    """
    height, width = (-(-side // stride) for side in truth.image_size)
    masks = truth.masks_at(stride, (height * stride, width * stride))
    row, column = windows.places()
    seen = ((row >= 0) & (row < height))[:, :, None] & ((column >= 0) & (column < width))[:, None]
    row, column = row.clamp(0, height - 1), column.clamp(0, width - 1)
    found = masks[owners[:, None, None], row[:, :, None], column[:, None, :]]
    return found * seen, seen
