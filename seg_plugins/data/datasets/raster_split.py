"""Rasters parted by area: what trains, what validates, and the windows that tile each part."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ...io.window_names import Area
from ..errors import DatasetError

__all__ = ["RasterSplit", "tiles"]


@dataclass(frozen=True)
class RasterSplit:
    """The part of every raster that validates; the rest trains. They share no pixel.

    Attributes:
        val_columns: the share of the columns, those at the right. One of the three is given.
        val_rows: the share of the rows, those at the bottom.
        val_rectangle: x, y, width, height in pixels.
    """

    val_columns: float = 0.0
    val_rows: float = 0.0
    val_rectangle: tuple[int, int, int, int] | None = None

    def areas(self, width: int, height: int) -> tuple[list[Area], list[Area]]:
        """The areas of a raster that train and those that validate.

        Raises:
            DatasetError: one part has no pixel, or the rectangle reaches over the raster.
        """
        whole = Area(0, 0, width, height)
        if self.val_rectangle is not None:
            val = Area(*self.val_rectangle)
            if whole.shared(val) != val.width * val.height:
                raise DatasetError(
                    f"split.val_rectangle {list(val)} reaches over the raster of {width} columns "
                    f"and {height} rows"
                )
        else:
            columns, rows = round(self.val_columns * width), round(self.val_rows * height)
            if not columns and not rows:
                raise DatasetError(
                    f"split: the share of {width} columns and {height} rows is no pixel"
                )
            if columns:
                val = Area(width - columns, 0, columns, height)
            else:
                val = Area(0, height - rows, width, rows)
        train = _without(whole, val)
        if not train:
            raise DatasetError("split leaves nothing to train on")
        return train, [val]


def _without(whole: Area, hole: Area) -> list[Area]:
    """The rest of an area as rectangles that share no pixel: left, right, above, below."""
    right, below = hole.columns[1], hole.rows[1]
    parts = (
        Area(whole.x, whole.y, hole.x - whole.x, whole.height),
        Area(right, whole.y, whole.columns[1] - right, whole.height),
        Area(hole.x, whole.y, hole.width, hole.y - whole.y),
        Area(hole.x, below, hole.width, whole.rows[1] - below),
    )
    return [part for part in parts if part.width and part.height]


def tiles(area: Area, size: int) -> list[Area]:
    """Windows that cover an area once, of about equal sides, `size` pixels at most, row by row."""
    columns, rows = (_cuts(side, size) for side in (area.width, area.height))
    return [
        Area(area.x + x0, area.y + y0, x1 - x0, y1 - y0)
        for y0, y1 in pairwise(rows)
        for x0, x1 in pairwise(columns)
    ]


def _cuts(side: int, size: int) -> list[int]:
    count = -(-side // size)
    return np.round(np.linspace(0, side, count + 1)).astype(int).tolist()
