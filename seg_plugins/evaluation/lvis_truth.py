"""LVIS ground truth: what each image is annotated for, and hotcoco's form of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import hotcoco
import numpy as np
from detectron2.structures import BoxMode

from ..data import Dataset
from ..io.masks import to_run_lengths
from .errors import EvaluationError

__all__ = ["ImageTruth", "LvisTruth"]

logger = logging.getLogger(__name__)

_FEDERATED = ("neg_category_ids", "not_exhaustive_category_ids")


@dataclass(frozen=True)
class ImageTruth:
    """One image.

    Attributes:
        number: of the image in the engine: 1, 2, ... in the order of the image ids.
        size: height and width in pixels.
        categories: (G,) int64 id in the file, of each object.
        boxes: (G, 4) float64 x, y, width, height in pixels.
        areas: (G,) float64 square pixels, as annotated.
        segmentations: G polygons or run lengths, as annotated; None for boxes alone.
        judged: ids of the categories of which a detection counts: those of the objects, and those
            that are known to be absent.
        incomplete: ids of the categories of which not all objects are annotated, so that a
            detection without a match is no mistake.
    """

    number: int
    size: tuple[int, int]
    categories: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    segmentations: list[Any]
    judged: frozenset[int]
    incomplete: frozenset[int]


class LvisTruth:
    """The objects of a dataset, and for which categories each image is annotated.

    Args:
        dataset: whose records have ``neg_category_ids`` and ``not_exhaustive_category_ids`` (ids
            in the file), and whose metadata has ``thing_frequencies``, as this package's reader of
            LVIS leaves them.

    Raises:
        EvaluationError: one of these is missing, or only some annotations have a mask.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.source = dataset.source
        # A user's own loader may give all of it; a json_file beside it is COCO's.
        given = bool(dataset.records) and _FEDERATED[0] in dataset.records[0]
        records = dataset.records if given else dataset.instance_records
        #: Whether the truth is known; it is not for the test sets.
        self.has_annotations = any("annotations" in record for record in records)
        found = sorted(records, key=lambda record: record["image_id"])
        self.image_ids = [record["image_id"] for record in found]
        #: (class that models predict) -> id in the file.
        self.category_of_class = {place: i for place, i, _ in dataset.instance_classes}
        self.categories = self._categories() if self.has_annotations else []
        self.images = [self._image(number, record) for number, record in enumerate(found, 1)]
        listed = sum(len(record.get("annotations", ())) for record in found)
        empty = listed - sum(len(image.categories) for image in self.images)
        if empty:
            logger.warning(
                "%s: %d of %d annotations have the area 0 and are left out, as the package lvis "
                "does", self.source, empty, listed,
            )  # fmt: skip
        self.has_masks = self._check_masks()

    def engine(self) -> hotcoco.COCO:
        """The truth as hotcoco takes it; images and annotations are numbered anew, from 1."""
        images = [
            {
                "id": image.number,
                "height": image.size[0],
                "width": image.size[1],
                "file_name": str(image_id),
                "neg_category_ids": sorted(image.judged - set(image.categories.tolist())),
                "not_exhaustive_category_ids": sorted(image.incomplete),
            }
            for image, image_id in zip(self.images, self.image_ids, strict=True)
        ]
        counts = [len(image.categories) for image in self.images]
        numbers = np.array([image.number for image in self.images], np.int64)
        masks: dict[str, Any] = {}
        if self.has_masks:
            masks["segmentation"] = [
                # hotcoco draws polygons itself, as the COCO API does.
                mask if isinstance(mask, list) else to_run_lengths(mask, *image.size)
                for image in self.images
                for mask in image.segmentations
            ]
        return hotcoco.COCO.from_arrays(
            images=images,
            categories=self.categories,
            image_ids=np.repeat(numbers, counts),
            category_ids=_joined([i.categories for i in self.images], np.zeros(0, np.int64)),
            boxes=_joined([image.boxes for image in self.images], np.zeros((0, 4))),
            area=_joined([image.areas for image in self.images], np.zeros(0)),
            **masks,
        )

    def _categories(self) -> list[dict[str, Any]]:
        """Those that the file lists."""
        frequencies: Mapping[int, str] = self.dataset.metadata.get("thing_frequencies") or {}
        if not any(frequencies.values()):
            raise EvaluationError(
                f"{self.source}: evaluator_type 'lvis' needs the 'frequency' (r, c or f) of each "
                "category, and there is none. Files of LVIS have it, read as "
                "detectron2.data.datasets.register_lvis_instances registers them; a loader of your "
                "own sets it as thing_frequencies in the dataset's metadata, {0: 'r', 1: 'f'}. For "
                "other files, set the evaluator_type 'coco' there."
            )
        found = []
        for place, category, name in self.dataset.instance_classes:
            if place not in frequencies:
                continue  # a class that this split's file does not list
            if not frequencies[place]:
                raise EvaluationError(
                    f"{self.source}: category {category} {name!r} has no 'frequency' (r, c or f), "
                    "which others have."
                )
            found.append({"id": category, "name": name, "frequency": frequencies[place]})
        return found

    def _image(self, number: int, record: Mapping[str, Any]) -> ImageTruth:
        annotations = record.get("annotations", ())
        missing = [key for key in _FEDERATED if key not in record]
        if missing and self.has_annotations:
            raise EvaluationError(
                f"{self.source}: image {record['image_id']} has no '{missing[0]}', by which "
                "evaluator_type 'lvis' knows what was looked for in it; [] says: nothing more."
            )
        without = [a for a in annotations if "area" not in a]
        if without:
            raise EvaluationError(
                f"{self.source}: an annotation of image {record['image_id']} has no 'area', which "
                "tells small from large."
            )
        annotations = [a for a in annotations if a["area"] > 0]
        boxes = [
            BoxMode.convert(list(a["bbox"]), a["bbox_mode"], BoxMode.XYWH_ABS) for a in annotations
        ]
        categories = [self.category_of_class[a["category_id"]] for a in annotations]
        return ImageTruth(
            number=number,
            size=(int(record["height"]), int(record["width"])),
            categories=np.array(categories, np.int64),
            boxes=np.array(boxes, np.float64).reshape(-1, 4),
            areas=np.array([a["area"] for a in annotations], np.float64),
            segmentations=[a.get("segmentation") for a in annotations],
            judged=frozenset(categories) | frozenset(record.get("neg_category_ids", ())),
            incomplete=frozenset(record.get("not_exhaustive_category_ids", ())),
        )

    def _check_masks(self) -> bool:
        """Whether annotations come with masks: all of them or none."""
        given = [bool(mask) for image in self.images for mask in image.segmentations]
        if any(given) and not all(given):
            raise EvaluationError(
                f"{self.source}: {given.count(False)} of {len(given)} annotations have no mask: "
                "give all of them a segmentation, or none to score boxes alone."
            )
        return any(given)


def _joined(parts: list[np.ndarray], empty: np.ndarray) -> np.ndarray:
    return np.concatenate([empty, *parts])
