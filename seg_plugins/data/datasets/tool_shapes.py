"""Shapes that annotation tools draw, as Detectron2's annotations."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.structures import BoxMode

from ...io.images import open_image
from ...io.masks import mask_area, to_run_lengths
from ..errors import DatasetError

__all__ = ["ellipse", "image_size", "number_of", "outline", "polygon_annotation", "rectangle"]

# Corners of a round shape.
_CORNERS = 64
_EXIF_ORIENTATION, _LYING = 0x0112, (5, 6, 7, 8)  # rows are stored as columns


def outline(xs: Any, ys: Any) -> list[float]:
    """Corners in pixels as x0, y0, x1, y1, ...

    Raises:
        DatasetError: fewer than three corners, not as many xs as ys, or what is no number.
    """
    if not (isinstance(xs, list) and isinstance(ys, list)) or len(xs) != len(ys):
        raise DatasetError("its corners are not as many xs as ys")
    if len(xs) < 3:
        raise DatasetError(f"a polygon has three corners or more, this has {len(xs)}")
    return [number_of(value) for pair in zip(xs, ys, strict=True) for value in pair]


def rectangle(x0: float, y0: float, x1: float, y1: float) -> list[float]:
    """The outline of a box, in pixels."""
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def ellipse(x: float, y: float, across: float, down: float, angle: float = 0.0) -> list[float]:
    """The outline of an ellipse: centre, half axes in pixels, and turn in radians."""
    turns = np.linspace(0, 2 * math.pi, _CORNERS, endpoint=False)
    u, v = across * np.cos(turns), down * np.sin(turns)
    xs = x + u * math.cos(angle) - v * math.sin(angle)
    ys = y + u * math.sin(angle) + v * math.cos(angle)
    return [float(value) for value in np.stack([xs, ys], 1).ravel()]


def polygon_annotation(
    outlines: list[list[float]], category_id: int, height: int, width: int
) -> dict[str, Any]:
    """One object of one or more outlines in pixels.

    Raises:
        DatasetError: no pixel of the image lies in it, or a corner lies far outside the image.
    """
    for corners in outlines:
        # The COCO API walks along every edge: a far point would cost gigabytes.
        for values, side in ((corners[0::2], width), (corners[1::2], height)):
            if min(values) < -side or max(values) > 2 * side:
                raise DatasetError(f"a corner lies far outside the image of {width} x {height}")
    area = mask_area(to_run_lengths(outlines, height, width))
    if not area:
        raise DatasetError(f"it covers no pixel of the image of {width} x {height}")
    xs = [x for corners in outlines for x in corners[0::2]]
    ys = [y for corners in outlines for y in corners[1::2]]
    return {
        "bbox": [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)],
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": category_id,
        "iscrowd": 0,
        "segmentation": outlines,
        "area": float(area),
    }


def number_of(value: Any) -> float:
    """A finite number.

    Raises:
        DatasetError: something else.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise DatasetError(f"{value!r} is no number")
    return float(value)


def image_size(path: Path) -> tuple[int, int]:
    """Height and width as the image is read, from its header alone.

    Raises:
        DatasetError: the file is missing or no image.
    """
    with open_image(str(path)) as image:
        width, height = image.size
        lies = image.getexif().get(_EXIF_ORIENTATION, 1) in _LYING
    return (width, height) if lies else (height, width)
