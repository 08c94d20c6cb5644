"""Panoptic segments drawn over an image, each with its id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from .overlays import OPACITY, instance_color

_OUTLINE = (255, 255, 255)
# Segments with less room than this around their middle, in pixels, get no number.
_ROOM = 4


def panoptic(
    image: np.ndarray,
    ids: np.ndarray,
    segments: Sequence[Mapping[str, Any]],
    stuff_colors: np.ndarray,
    *,
    numbers: bool = True,
) -> np.ndarray:
    """Segments over an image: stuff in its class's colour, things in colours of their own.

    Args:
        image: (H, W, 3) uint8, RGB.
        ids: (H, W) integer segment ids.
        segments: a dict for each, with ``id``, ``isthing`` and ``category_id``; pixels of other
            ids are void and keep the bare image.
        stuff_colors: (K, 3) uint8, RGB, by the ``category_id`` of stuff.
        numbers: write each segment's id where it is widest.

    Returns:
        (H, W, 3) uint8.
    """
    picture = image.copy()
    things = 0
    for segment in segments:
        inside = ids == segment["id"]
        if segment["isthing"]:
            color = np.array(instance_color(things))
            things += 1
        else:
            color = np.asarray(stuff_colors[segment["category_id"]])
        picture[inside] = ((1 - OPACITY) * image[inside] + OPACITY * color).astype(np.uint8)
    picture[_edges(ids)] = _OUTLINE
    if numbers:
        for segment in segments:
            _write_number(picture, ids == segment["id"], segment["id"])
    return picture


def _edges(ids: np.ndarray) -> np.ndarray:
    """Pixels whose right or lower neighbour has another id."""
    edges = np.zeros(ids.shape, bool)
    edges[:, :-1] |= ids[:, :-1] != ids[:, 1:]
    edges[:-1] |= ids[:-1] != ids[1:]
    return edges


def _write_number(picture: np.ndarray, inside: np.ndarray, number: int) -> None:
    padded = np.pad(inside.astype(np.uint8), 1)  # the border of the image bounds it, too
    room = cv2.distanceTransform(padded, cv2.DIST_L2, 3)[1:-1, 1:-1]
    widest = room.max(initial=0)
    if widest < _ROOM:
        return
    places = np.argwhere(room > widest - 0.5)
    y, x = places[len(places) // 2]
    scale = min(max(widest / 30, 0.3), 1.0)
    text = str(number)
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    place = (int(x - width // 2), int(y + height // 2))
    for color, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(
            picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, color, thickness, cv2.LINE_AA
        )
