"""Instance masks in the output frame: polygons and run lengths through a `Geometry`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..io.masks import mask_box, to_bitmask, to_run_lengths
from .geometry import Geometry

__all__ = [
    "Bounds",
    "clipped_bounds",
    "mask_bounds",
    "move_polygons",
    "polygons_to_mask",
    "rle_to_mask",
]

# x0, y0, x1, y1 in pixels, at pixel edges.
Bounds = tuple[float, float, float, float]


def move_polygons(polygons: list[list[float]], geometry: Geometry) -> list[np.ndarray]:
    """Flat polygons of the source image -> flat float64 polygons of the output frame."""
    return [
        geometry.apply_points(np.asarray(polygon, dtype=np.float64).reshape(-1, 2)).ravel()
        for polygon in polygons
    ]


def polygons_to_mask(polygons: list[np.ndarray], out: np.ndarray) -> Bounds | None:
    """Rasterise flat polygons as the COCO API does, into `out`, (H, W) bool, all False.

    Returns:
        x0, y0, x1, y1 of the set pixels; None where no pixel is set.
    """
    height, width = out.shape
    rle = to_run_lengths(polygons, height, width)
    x, y, w, h = mask_box(rle)
    # The decoded mask is stored by columns: copying its box alone avoids most of the scatter.
    out[y : y + h, x : x + w] = to_bitmask(rle, height, width)[y : y + h, x : x + w]
    return (x, y, x + w, y + h) if w and h else None


def rle_to_mask(rle: dict[str, Any], geometry: Geometry, out: np.ndarray) -> None:
    """Decode run lengths of the source image into `out`, (H, W) bool, by nearest neighbour."""
    rle = to_run_lengths(rle, *rle["size"])
    x, y, w, h = mask_box(rle)
    rows, columns = geometry.source_rows(), geometry.source_columns()
    top, bottom = np.searchsorted(rows, [y, y + h])
    left, right = np.searchsorted(columns, [x, x + w])
    if top < bottom and left < right:
        mask = to_bitmask(rle, *rle["size"])
        picked = mask[rows[top:bottom]][:, columns[left:right]]
        geometry.unturned_view(out)[top:bottom, left:right] = picked


def clipped_bounds(polygons: list[np.ndarray], height: int, width: int) -> Bounds | None:
    """The bounds of what polygons cover inside a window, exactly.

    Args:
        polygons: flat, in the window's frame.
        height: of the window; it starts at the origin.
        width: of the window.

    Returns:
        x0, y0, x1, y1 or None where they cover nothing of the window.
    """
    points = []
    corners = np.array([(0, 0), (width, 0), (0, height), (width, height)], np.float64)
    for polygon in polygons:
        start = polygon.reshape(-1, 2)
        end = np.roll(start, -1, axis=0)
        points.append(_clip_segments(start, end, np.array([width, height], np.float64)))
        points.append(corners[_contains(start, end, corners)])
    found = np.concatenate(points)
    if not len(found):
        return None
    (x0, y0), (x1, y1) = found.min(axis=0), found.max(axis=0)
    return (float(x0), float(y0), float(x1), float(y1)) if x1 > x0 and y1 > y0 else None


def mask_bounds(mask: np.ndarray) -> Bounds | None:
    """x0, y0, x1, y1 of the set pixels, at pixel edges; None for an empty mask."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return None
    columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(axis=0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _clip_segments(start: np.ndarray, end: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """The end points of the parts of segments inside [0, limits] (Liang and Barsky 1984)."""
    step = end - start
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = (0 - start) / step, (limits - start) / step
    # A segment along an axis has no crossing on it: it is inside for all t, or for none.
    parallel, inside = step == 0, (start >= 0) & (start <= limits)
    enter = np.where(parallel, np.where(inside, 0.0, 2.0), np.minimum(low, high)).max(axis=1)
    leave = np.where(parallel, np.where(inside, 1.0, -1.0), np.maximum(low, high)).min(axis=1)
    enter, leave = np.maximum(enter, 0), np.minimum(leave, 1)
    kept = enter <= leave
    a = start[kept] + enter[kept, None] * step[kept]
    b = start[kept] + leave[kept, None] * step[kept]
    return np.clip(np.concatenate([a, b]), 0, limits)


def _contains(start: np.ndarray, end: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Which of the points lie inside the polygon, by the even-odd rule."""
    x, y = points[:, 0, None], points[:, 1, None]
    crosses = (start[:, 1] > y) != (end[:, 1] > y)
    with np.errstate(divide="ignore", invalid="ignore"):
        at = start[:, 0] + (y - start[:, 1]) / (end[:, 1] - start[:, 1]) * (end - start)[:, 0]
    return (crosses & (x < at)).sum(axis=1) % 2 == 1
