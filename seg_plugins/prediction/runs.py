"""Masks of a raster as vertical runs: as small as what they show, however large the raster is.

A mask is an (n, 3) int64 array of rows (x, y0, y1): the pixels y0 to y1 - 1 of column x, by rising
x and y0, without overlap.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..io.masks import to_run_lengths
from .errors import PredictionError

# Columns of a mask that are unpacked at once have at most so many pixels.
_AT_ONCE = 1 << 22


def from_bitmap(mask: np.ndarray, y: int, x: int) -> np.ndarray:
    """Runs of an (h, w) bool mask whose first pixel lies at row `y` and column `x`."""
    steps = np.diff(mask.T.astype(np.int8), axis=1, prepend=0, append=0)
    columns, first = np.nonzero(steps == 1)
    last = np.nonzero(steps == -1)[1]
    return np.stack([columns + x, first + y, last + y], axis=1).astype(np.int64)


def area(runs: np.ndarray) -> int:
    """Pixels."""
    return int((runs[:, 2] - runs[:, 1]).sum())


def bounds(runs: np.ndarray) -> tuple[int, int, int, int]:
    """First row, first column, last row and last column (exclusive) of a mask with pixels."""
    return int(runs[:, 1].min()), int(runs[0, 0]), int(runs[:, 2].max()), int(runs[-1, 0]) + 1


def cut(runs: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """The part inside rows y0 to y1 and columns x0 to x1 of `box` (y0, x0, y1, x1)."""
    y0, x0, y1, x1 = box
    x, first, last = runs.T
    first, last = np.maximum(first, y0), np.minimum(last, y1)
    kept = (x >= x0) & (x < x1) & (first < last)
    return np.stack([x[kept], first[kept], last[kept]], axis=1)


def overlap(one: np.ndarray, two: np.ndarray) -> int:
    """Pixels that two masks share."""
    if not len(one) or not len(two):
        return 0
    height = int(max(one[:, 2].max(), two[:, 2].max())) + 1
    first, last = _line(one, height)
    return int((_covered(two, last, height) - _covered(two, first, height)).sum())


def union(masks: list[np.ndarray]) -> np.ndarray:
    """The pixels of any of the masks."""
    runs = np.concatenate(masks)
    runs = runs[np.lexsort((runs[:, 1], runs[:, 0]))]
    height = int(runs[:, 2].max()) + 1  # one more than the rows: columns do not touch
    first, last = _line(runs, height)
    reach = np.maximum.accumulate(last)
    begins = np.r_[True, first[1:] > reach[:-1]]
    start, end = first[begins], reach[np.r_[np.nonzero(begins)[0][1:] - 1, len(runs) - 1]]
    x = start // height
    return np.stack([x, start - x * height, end - x * height], axis=1)


def paint(target: np.ndarray, runs: np.ndarray, y: int, x: int, value: int) -> None:
    """Set the pixels of a mask in an (h, w) part of the raster that begins at `y` and `x`."""
    height, width = target.shape
    runs = cut(runs, (y, x, y + height, x + width))
    if not len(runs):
        return
    y0, x0, y1, x1 = bounds(runs)
    columns = max(_AT_ONCE // (y1 - y0), 1)
    for left in range(x0, x1, columns):
        right = min(left + columns, x1)
        part = cut(runs, (y0, left, y1, right))
        steps = np.zeros((y1 - y0 + 1, right - left), np.int8)
        steps[part[:, 1] - y0, part[:, 0] - left] = 1
        # A run may begin where the one before it ends.
        np.add.at(steps, (part[:, 2] - y0, part[:, 0] - left), -1)
        mask = steps[:-1].cumsum(axis=0, dtype=np.int8).view(bool)
        target[y0 - y : y1 - y, left - x : right - x][mask] = value


def check_coco_size(height: int, width: int) -> None:
    """Raise PredictionError for a raster of more pixels than COCO's run lengths can count."""
    if height * width >= 1 << 32:
        raise PredictionError(
            f"{height}x{width} pixels: COCO's run lengths count up to 4294967295; leave json out "
            "of --save (mask has the objects' numbers)"
        )


def to_coco(runs: np.ndarray, height: int, width: int) -> dict[str, Any]:
    """COCO's packed run lengths, ``counts`` as text, of a raster that `check_coco_size` passes."""
    first, last = _line(runs, height)
    # From the foot of one column to the head of the next it is one length.
    joint = first[1:] == last[:-1]
    first, last = first[np.r_[True, ~joint]], last[np.r_[~joint, True]]
    edges = np.r_[0, np.stack([first, last], axis=1).ravel(), height * width]
    counts = np.diff(edges)
    counts = counts[:-1] if counts[-1] == 0 else counts
    size = [height, width]
    packed = to_run_lengths({"size": size, "counts": counts.tolist()}, height, width)
    return {"size": size, "counts": packed["counts"].decode("ascii")}


def _line(runs: np.ndarray, height: int) -> tuple[np.ndarray, np.ndarray]:
    """First and last (exclusive) place of each run where the columns stand one after another."""
    start = runs[:, 0] * height
    return start + runs[:, 1], start + runs[:, 2]


def _covered(runs: np.ndarray, places: np.ndarray, height: int) -> np.ndarray:
    """How many pixels of a mask lie before each place."""
    first, last = _line(runs, height)
    before = np.r_[0, np.cumsum(last - first)]
    index = np.searchsorted(first, places, side="right")
    beyond = np.r_[0, last][index] - places
    return before[index] - np.maximum(beyond, 0) * (index > 0)
