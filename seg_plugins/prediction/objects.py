"""The single objects of a prediction, whatever the kind of system."""

from __future__ import annotations

import cv2
import numpy as np

from ..io.masks import to_crop
from ..ops.run_length import encode_label_map
from .errors import PredictionError
from .image_result import ImageResult
from .labels import BACKGROUND
from .regions import Region

# As many objects have numbers of their own in 16 bits.
_AT_ONCE = (1 << 16) - 1


def object_regions(result: ImageResult) -> list[Region]:
    """Instances, things of a panoptic system, or the connected pieces of a semantic one's classes.

    Pieces are connected over corners as well; those of a class that is called background are none.
    Nor is an instance without a pixel.
    """
    if result.panoptic is not None or result.instances is not None:
        return [region for region in result.regions if region.label.is_thing and region.area]
    regions = []
    for region in result.regions:
        if region.label.name.lower() not in BACKGROUND:
            count, pieces = cv2.connectedComponents(region.bitmask.view(np.uint8))
            for first in range(0, count - 1, _AT_ONCE):
                part = pieces - first
                part[(part < 0) | (part > _AT_ONCE)] = 0
                codes = encode_label_map(part.astype(np.uint16))
                masks = [{"size": list(pieces.shape), "counts": codes[i]} for i in codes if i]
                regions += [Region(region.label, mask, region.label.color) for mask in masks]
    return regions


def object_map(regions: list[Region], height: int, width: int) -> np.ndarray:
    """(H, W) uint8 or uint16: 1, 2, ... in the order of the objects, the first on top; 0 is none.

    Raises:
        PredictionError: more objects than 16 bits can tell apart.
    """
    if len(regions) > _AT_ONCE:
        raise PredictionError(
            f"{len(regions)} objects: PNG holds numbers up to {_AT_ONCE}; store the image as TIFF "
            "and predict it with --window"
        )
    numbers = np.zeros((height, width), np.uint8 if len(regions) < 256 else np.uint16)
    for number in range(len(regions), 0, -1):
        mask, (x, y) = to_crop(regions[number - 1].mask)
        numbers[y : y + mask.shape[0], x : x + mask.shape[1]][mask] = number
    return numbers
