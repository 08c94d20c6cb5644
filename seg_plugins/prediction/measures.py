"""Sizes and brightness of objects as a table."""

from __future__ import annotations

import csv
import io
import math

import cv2
import numpy as np

from ..io.masks import to_crop
from .place import Place
from .regions import Region

_COLUMNS = ("object", "class", "score", "x", "y", "area_px", "perimeter_px", "diameter_px")
_IN_UNITS = ("area", "perimeter", "diameter", "unit")

# What a pixel of the border adds, by how its neighbours on the border lie: Benkrid and Crookes
# 2000, as scikit-image's regionprops has it. The place is 1 + 2 for each neighbour beside, above or
# below it + 10 for each diagonal one.
_STRAIGHT, _DIAGONAL = 1.0, math.sqrt(2)
_STEPS = np.zeros(50)
_STEPS[[5, 7, 15, 17, 25, 27]] = _STRAIGHT
_STEPS[[21, 33]] = _DIAGONAL
_STEPS[[13, 23]] = (_STRAIGHT + _DIAGONAL) / 2
_KERNEL = np.array([[10, 2, 10], [2, 1, 2], [10, 2, 10]], np.float32)


def perimeter(mask: np.ndarray) -> float:
    """Length of the border of an (h, w) bool mask in pixels, along the centres of its pixels."""
    padded = np.pad(mask.astype(np.uint8), 1)
    inner = cv2.erode(padded, cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)))
    border = (padded - inner).astype(np.float32)
    codes = cv2.filter2D(border, -1, _KERNEL, borderType=cv2.BORDER_CONSTANT).astype(np.int64)
    return float((np.bincount(codes.ravel(), minlength=50)[:50] * _STEPS).sum())


def measures(regions: list[Region], values: np.ndarray, place: Place) -> bytes:
    """A CSV table with a row for each object.

    Columns: number, class and score; the centre of mass x, y in pixels (the middle of the first
    pixel is 0, 0); area, perimeter and equivalent diameter (of a disc of that area) in pixels and,
    where the file states the size of a pixel, in its unit (lengths of square pixels only); the mean
    of each channel.

    Args:
        regions: the objects.
        values: (H, W, C) as the file holds them.
        place: of the image.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    means = [f"mean_{channel}" for channel in range(1, values.shape[2] + 1)]
    writer.writerow([*_COLUMNS, *_IN_UNITS, *means])
    for number, region in enumerate(regions, 1):
        mask, (x, y) = to_crop(region.mask)
        rows, columns = np.nonzero(mask)
        area = len(rows)
        lengths = [perimeter(mask), math.sqrt(4 * area / math.pi)]
        inside = values[y : y + mask.shape[0], x : x + mask.shape[1]][mask]
        score = "" if region.score is None else f"{region.score:.4f}"
        centre = [f"{x + columns.mean():.2f}", f"{y + rows.mean():.2f}"]
        sizes = [str(area), *(f"{length:.3f}" for length in lengths)]
        brightness = [f"{mean:.6g}" for mean in inside.mean(axis=0, dtype=np.float64)]
        writer.writerow(
            [number, region.label.name, score, *centre, *sizes,
             *_in_units(area, lengths, place), *brightness]
        )  # fmt: skip
    return text.getvalue().encode()


def _in_units(area: int, lengths: list[float], place: Place) -> list[str]:
    if place.size is None:
        return ["", "", "", ""]
    width, height = place.size
    is_square = math.isclose(width, height, rel_tol=1e-6)
    found = [f"{length * width:.6g}" if is_square else "" for length in lengths]
    return [f"{area * width * height:.6g}", *found, place.unit]
