"""Polygons that give back a mask exactly."""

from __future__ import annotations

import cv2
import numpy as np

__all__ = ["mask_to_polygons"]


def mask_to_polygons(mask: np.ndarray) -> list[list[float]]:
    """Trace a mask along the edges of its pixels.

    Rasterised by the COCO API, the polygons give `mask` back exactly. COCO polygons cannot have
    holes, so a part with holes is cut in two through the hole.

    Args:
        mask: (H, W) bool.

    Returns:
        Polygons as flat lists x0, y0, x1, y1, ... in pixels; empty for an empty mask.
    """
    # On the doubled grid an even coordinate is the left or upper half of a pixel and an odd one
    # the right or lower half, so a point of the contour tells which corner it belongs to.
    doubled = np.kron(mask.astype(np.uint8), np.ones((2, 2), np.uint8))
    contours, hierarchy = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    polygons: list[list[float]] = []
    for index, contour in enumerate(contours):
        _, _, child, parent = hierarchy[0][index]
        if parent >= 0:
            continue
        if child >= 0:
            part = np.zeros_like(doubled)
            cv2.drawContours(part, contours, index, 1, cv2.FILLED, hierarchy=hierarchy, maxLevel=0)
            part = (part & doubled)[::2, ::2].astype(bool)
            left = int(contours[child][:, 0, 0].mean()) // 2
            polygons += mask_to_polygons(part & (np.arange(mask.shape[1]) <= left))
            polygons += mask_to_polygons(part & (np.arange(mask.shape[1]) > left))
        else:
            polygons.append(_corners((contour[:, 0] + 1) // 2))
    return polygons


def _corners(points: np.ndarray) -> list[float]:
    """The points where a closed lattice path turns, flattened."""
    points = points[(points != np.roll(points, 1, axis=0)).any(axis=1)]
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    turns = np.sign(before) != np.sign(after)
    return [float(value) for value in points[turns.any(axis=1)].ravel()]
