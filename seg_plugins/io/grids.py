"""Where the pixels of a raster lie: arithmetic with rasterio's transforms, whatever its version."""

from __future__ import annotations

from typing import Any

import numpy as np

from .window_names import Area

__all__ = ["corners_of", "mapped", "transform_at"]


def mapped(transform: Any, points: np.ndarray) -> np.ndarray:
    """(N, 2) columns and rows -> map units, or the other way with ``~transform``."""
    a, b, c, d, e, f = transform[:6]
    return points @ np.array([[a, d], [b, e]]) + np.array([c, f])


def corners_of(area: Area, transform: Any) -> np.ndarray:
    """(4, 2) the corners of an area, in map units."""
    points = [(x, y) for x in area.columns for y in area.rows]
    return mapped(transform, np.array(points, np.float64))


def transform_at(transform: Any, area: Area) -> Any:
    """The transform of a window."""
    from affine import Affine  # a part of rasterio

    a, b, _, d, e, _ = transform[:6]
    x, y = mapped(transform, np.array([[area.x, area.y]], np.float64))[0].tolist()
    return Affine(a, b, x, d, e, y)
