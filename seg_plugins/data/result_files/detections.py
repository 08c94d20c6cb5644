"""COCO's results of detection: boxes and run lengths, of LVIS as well."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...io.masks import mask_box, to_run_lengths
from ..errors import DatasetError
from .listed import ResultFile

__all__ = ["Detections", "DetectionsOfImages", "detections_of"]

# Whole numbers from here on do not fit into 64 bits.
_WIDEST = 1 << 63


@dataclass(frozen=True)
class Detections:
    """The N detections of one image, in the order of the file, which breaks ties of the score.

    Attributes:
        boxes: (N, 4) float64 x, y, width, height in pixels.
        scores: (N,) float64.
        categories: (N,) int64 ids in the file.
        masks: N of COCO's run lengths; None of boxes alone.
    """

    boxes: np.ndarray
    scores: np.ndarray
    categories: np.ndarray
    masks: list[Mapping[str, Any]] | None


@dataclass(frozen=True)
class DetectionsOfImages:
    """All detections of a file.

    Attributes:
        by_image: image id in the file -> its detections.
        with_masks: each detection has a mask; None of a file without detections.
    """

    by_image: Mapping[Hashable, Detections]
    with_masks: bool | None

    def of(self, image_id: Hashable) -> Detections:
        """Those of an image; none where the file lists none."""
        if image_id in self.by_image:
            return self.by_image[image_id]
        masks: list[Mapping[str, Any]] | None = None if self.with_masks is False else []
        return Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64), masks)


def detections_of(file: ResultFile) -> DetectionsOfImages:
    """Check a file's detections and sort them by image.

    Where they have masks and no boxes, the boxes are those around the masks, as in pycocotools.

    Raises:
        DatasetError: a field is missing or of the wrong type, a score is NaN, a box is not
            finite, or some detections have a mask or a box and others none. The message names the
            detection.
    """
    records = file.records
    if not records:
        return DetectionsOfImages({}, None)
    scores = _numbers(file, "score", [r.get("score") for r in records])
    if np.isnan(scores).any():
        raise file.fail(int(np.flatnonzero(np.isnan(scores))[0]), "the score is NaN")
    categories = [record.get("category_id") for record in records]
    for place, category in enumerate(categories):
        if not isinstance(category, int) or isinstance(category, bool) or abs(category) >= _WIDEST:
            shown = str(category)[:40]
            raise file.fail(place, f"category_id should be an integer of 64 bits, not {shown}")
    masks = _masks(file) if _all_or_none(file, "segmentation") else None
    if _all_or_none(file, "bbox"):
        boxes = _boxes(file)
    elif masks is not None:
        boxes = np.array([mask_box(mask) for mask in masks], np.float64)
    else:
        raise file.fail(0, "it has neither bbox nor segmentation")
    places: dict[Hashable, list[int]] = {}
    for place, record in enumerate(records):
        image_id = record.get("image_id")
        if not isinstance(image_id, int | str) or isinstance(image_id, bool):
            raise file.fail(place, f"image_id should be a number or text, not {image_id!r}")
        places.setdefault(image_id, []).append(place)
    ids = np.array(categories, np.int64)
    by_image = {
        image_id: Detections(
            boxes[own], scores[own], ids[own], None if masks is None else [masks[i] for i in own]
        )
        for image_id, own in places.items()
    }
    return DetectionsOfImages(by_image, masks is not None)


def _all_or_none(file: ResultFile, key: str) -> bool:
    has = [record.get(key) is not None for record in file.records]
    if any(has) and not all(has):
        raise file.fail(has.index(False), f"it has no {key}, which {sum(has)} others have")
    return has[0]


def _boxes(file: ResultFile) -> np.ndarray:
    given = [record["bbox"] for record in file.records]
    for place, box in enumerate(given):
        if not isinstance(box, list) or len(box) != 4:
            raise file.fail(place, f"bbox should be x, y, width and height, not {str(box)[:60]}")
    flat = _numbers(file, "bbox", [side for box in given for side in box], each=4)
    wrong = np.flatnonzero(~np.isfinite(flat))
    if wrong.size:
        place = int(wrong[0]) // 4
        raise file.fail(place, f"bbox {given[place]} is not finite")
    return flat.reshape(-1, 4)


def _numbers(file: ResultFile, key: str, values: Sequence[Any], each: int = 1) -> np.ndarray:
    """float64 of `values`, of which every result has `each`."""
    for place, value in enumerate(values):
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise file.fail(place // each, f"{key} should be a number, not {value!r}")
    try:
        return np.array(values, np.float64)
    except OverflowError:
        place = next(i for i, v in enumerate(values) if isinstance(v, int) and abs(v) >= _WIDEST)
        raise file.fail(place // each, f"{key} is out of all range") from None


def _masks(file: ResultFile) -> list[Mapping[str, Any]]:
    return [packed_mask(file, place, r["segmentation"]) for place, r in enumerate(file.records)]


def packed_mask(file: ResultFile, place: int, mask: Any) -> Mapping[str, Any]:
    """COCO's packed run lengths of a result.

    Raises:
        DatasetError: polygons, or run lengths without size or counts.
    """
    size = mask.get("size") if isinstance(mask, dict) else None
    counts = mask.get("counts") if isinstance(mask, dict) else None
    if not (
        isinstance(size, list)
        and len(size) == 2
        and all(isinstance(side, int) and side > 0 for side in size)
        and (isinstance(counts, str) or _are_lengths(counts, size))
    ):
        raise file.fail(
            place,
            "segmentation should be run lengths of the whole image, {'size': [height, width], "
            f"'counts': ...}}, not {str(mask)[:60]}",
        )
    if isinstance(counts, str):
        return mask
    try:
        return to_run_lengths(mask, *size)
    except (ValueError, TypeError) as error:
        raise file.fail(place, f"segmentation: {error}") from None


def _are_lengths(counts: Any, size: list[int]) -> bool:
    """Whether these are run lengths that are not packed and fill the image."""
    return (
        isinstance(counts, list)
        and all(isinstance(c, int) and c >= 0 for c in counts)
        and sum(counts) == size[0] * size[1]
    )


def unknown_error(file: ResultFile, image_id: Hashable, known: int, dataset: str) -> DatasetError:
    """The error for results of an image that the dataset has not, to be raised."""
    count = sum(record.get("image_id") == image_id for record in file.records)
    return DatasetError(
        f"{file.path}: image_id {image_id!r} of {count} results is none of the {known} images of "
        f"'{dataset}'"
    )
