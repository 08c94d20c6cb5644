"""Masks as polygons, as COCO's run lengths and as bitmasks: the one conversion between them.

`RunLengthMasks` of :mod:`seg_plugins.ops.run_length` holds the masks of an image in one piece and
stands on this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import pycocotools.mask as coco_mask

__all__ = [
    "Segmentation",
    "boxes_to_run_lengths",
    "encode_bitmasks",
    "intersection",
    "mask_area",
    "mask_box",
    "to_bitmask",
    "to_bitmasks",
    "to_crop",
    "to_polygons",
    "to_run_lengths",
]

# An annotation's mask: flat polygons x0, y0, x1, y1, ... in pixels, or COCO's run lengths
# {"size": [h, w], "counts": ...}, packed as a string or bytes, or a list of lengths.
Segmentation = Sequence[Any] | Mapping[str, Any]


def to_run_lengths(segmentation: Segmentation, height: int, width: int) -> dict[str, Any]:
    """Packed run lengths of one mask, drawn as the COCO API does.

    Args:
        segmentation: polygons of at least three points each, or run lengths.
        height: of the image, in pixels.
        width: of the image, in pixels.
    """
    if isinstance(segmentation, Mapping):
        if isinstance(segmentation["counts"], list):
            return coco_mask.frPyObjects(dict(segmentation), height, width)
        return dict(segmentation)
    polygons = [p.tolist() if isinstance(p, np.ndarray) else p for p in segmentation]
    return coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))


def boxes_to_run_lengths(boxes: np.ndarray, height: int, width: int) -> list[dict[str, Any]]:
    """Packed run lengths of (N, 4) boxes, x, y, width, height in pixels."""
    return coco_mask.frPyObjects(boxes, height, width) if len(boxes) else []


def encode_bitmasks(masks: np.ndarray) -> list[dict[str, Any]]:
    """Packed run lengths of (N, H, W) masks, non-zero inside."""
    if not len(masks):
        return []
    stacked = np.asfortranarray((masks != 0).astype(np.uint8).transpose(1, 2, 0))
    return coco_mask.encode(stacked)


def to_bitmask(segmentation: Segmentation, height: int, width: int) -> np.ndarray:
    """(H, W) bool of one mask; arguments as those of :func:`to_run_lengths`."""
    return coco_mask.decode(to_run_lengths(segmentation, height, width)).view(bool)


def to_bitmasks(rles: Sequence[Mapping[str, Any]], height: int, width: int) -> np.ndarray:
    """(N, H, W) uint8, 1 inside, of packed run lengths."""
    if not rles:
        return np.zeros((0, height, width), np.uint8)
    return np.ascontiguousarray(coco_mask.decode(list(rles)).transpose(2, 0, 1))


def intersection(one: Mapping[str, Any], two: Mapping[str, Any]) -> dict[str, Any]:
    """Packed run lengths of the pixels that two of the same size share."""
    return coco_mask.merge([one, two], intersect=True)


def mask_area(rle: Mapping[str, Any]) -> int:
    """Pixels of packed run lengths."""
    return int(coco_mask.area(rle))


def mask_box(rle: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """x, y, width and height in pixels of packed run lengths; 0, 0, 0, 0 where nothing is set."""
    x, y, width, height = (int(side) for side in coco_mask.toBbox(rle))
    return x, y, width, height


def to_crop(rle: Mapping[str, Any]) -> tuple[np.ndarray, tuple[int, int]]:
    """The part of a mask inside its box, whatever the size of its image.

    Args:
        rle: packed run lengths.

    Returns:
        (h, w) bool, and x and y of its first pixel; 0 x 0 where nothing is set.
    """
    x, y, width, height = mask_box(rle)
    rows = rle["size"][0]
    ends = np.cumsum(_lengths(rle["counts"])) - x * rows
    # Of lengths that alternate, the second, fourth, ... are inside.
    inside = ends[: len(ends) // 2 * 2].reshape(-1, 2)
    steps = np.zeros(width * rows + 1, np.int8)
    np.add.at(steps, inside[:, 0], 1)
    np.add.at(steps, inside[:, 1], -1)
    columns = steps[:-1].cumsum(dtype=np.int8).view(bool).reshape(width, rows)
    return np.ascontiguousarray(columns[:, y : y + height].T), (x, y)


def _lengths(counts: str | bytes) -> np.ndarray:
    """Run lengths of COCO's packed text: five bits a letter, differences from the fourth on."""
    text = counts.encode("ascii") if isinstance(counts, str) else counts
    letters = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    last = np.flatnonzero(letters & 32 == 0)
    first = np.r_[0, last[:-1] + 1]
    place = np.arange(len(letters)) - np.repeat(first, last - first + 1)
    values = np.add.reduceat((letters & 31) << 5 * place, first)
    values -= (letters[last] & 16 > 0).astype(np.int64) << 5 * (last - first + 1)
    values[1::2] = values[1::2].cumsum()  # each on top of the one before the last
    values[2::2] = values[2::2].cumsum()
    return values


def to_polygons(mask: np.ndarray) -> list[list[float]]:
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
            polygons += to_polygons(part & (np.arange(mask.shape[1]) <= left))
            polygons += to_polygons(part & (np.arange(mask.shape[1]) > left))
        else:
            polygons.append(_corners((contour[:, 0] + 1) // 2))
    return polygons


def _corners(points: np.ndarray) -> list[float]:
    """The points where a closed lattice path turns, flattened."""
    points = points[(points != np.roll(points, 1, axis=0)).any(axis=1)]
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    turns = np.sign(before) != np.sign(after)
    return [float(value) for value in points[turns.any(axis=1)].ravel()]
