"""COCO ground truth, image by image, in the arrays that matching needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from seg_plugins.ops.run_length import RunLengthMasks

import numpy as np
from detectron2.structures import BoxMode

from ..data import Dataset
from ..io.masks import mask_area, to_run_lengths
from .errors import EvaluationError

# COCO's area ranges in square pixels, ends included: all, small, medium, large.
AREA_RANGES = np.array([[0, 1e5**2], [0, 32**2], [32**2, 96**2], [96**2, 1e5**2]], dtype=np.float64)


def outside_area_ranges(areas: np.ndarray) -> np.ndarray:
    """(A, N) bool: which of N areas lie outside each range."""
    return (areas < AREA_RANGES[:, :1]) | (areas > AREA_RANGES[:, 1:])


@dataclass(frozen=True)
class ImageTruth:
    """The G annotations of one image, sorted by category.

    Attributes:
        categories: (G,) int64 index of the category in :attr:`CocoTruth.categories`.
        boxes: (G, 4) float64 x, y, width, height in pixels.
        areas: (G,) float64 square pixels, as annotated.
        crowd: (G,) bool.
        segmentations: G polygons or run-length masks, as annotated; None for boxes alone.
        height: Rows of the image.
        width: Columns of the image.
    """

    categories: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    segmentations: Sequence[Any]
    height: int
    width: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image."""
        return self.height, self.width

    @property
    def ignored(self) -> np.ndarray:
        """(A, G) bool: what each area range does not ask for."""
        return outside_area_ranges(self.areas) | self.crowd

    def masks(self) -> RunLengthMasks:
        """The annotations' masks, rasterised as COCO does."""
        rles = [to_run_lengths(s, self.height, self.width) for s in self.segmentations]
        return RunLengthMasks.from_coco(rles, self.height, self.width)


class CocoTruth:
    """The instances of a dataset, in the order of its classes.

    Args:
        dataset: with instance truth, of its own or in the ``json_file`` beside it.

    Raises:
        EvaluationError: an image stands twice, or only some annotations have a mask.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.source = dataset.source
        records = dataset.instance_records
        self._records = {record["image_id"]: record for record in records}
        if len(self._records) != len(records):
            raise EvaluationError(f"{self.source}: an image_id stands for two images.")
        #: Image ids in the ascending order in which COCO breaks ties of the score.
        self.image_ids = sorted(self._records)
        #: Whether the truth is known; it is not for hidden test sets.
        self.has_annotations = any("annotations" in record for record in records)
        #: (predicted class, id in the dataset's file, name) of each category.
        self.categories = dataset.instance_classes
        self.has_masks = self._check_masks()

    def _check_masks(self) -> bool:
        """Whether annotations come with masks: all of them or none."""
        found = [(r, a) for r in self._records.values() for a in r.get("annotations", ())]
        without = [(r, a) for r, a in found if not a.get("segmentation")]
        if 0 < len(without) < len(found):
            record, annotation = without[0]
            raise EvaluationError(
                f"{self.source}: {len(without)} of {len(found)} annotations have no mask, the "
                f"first is {annotation.get('id', 'one')} of {record['file_name']}: give all of "
                "them a segmentation, or none to score boxes alone."
            )
        return bool(found) and not without

    @property
    def class_names(self) -> list[str]:
        """The classes' names."""
        return [name for _, _, name in self.categories]

    @property
    def category_ids(self) -> list[int]:
        """The classes' ids in the dataset's file."""
        return [category for _, category, _ in self.categories]

    def image(self, image_id: Any) -> ImageTruth:
        """The annotations of one image."""
        record = self._records[image_id]
        if not {"height", "width"} <= record.keys():
            raise EvaluationError("its record has no height and width, which scores need.")
        found = sorted(record.get("annotations", ()), key=lambda a: a["category_id"])  # stable
        boxes = [BoxMode.convert(list(a["bbox"]), a["bbox_mode"], BoxMode.XYWH_ABS) for a in found]
        return ImageTruth(
            categories=np.array([a["category_id"] for a in found], np.int64),
            boxes=np.array(boxes, np.float64).reshape(-1, 4),
            areas=np.array([_area(a) for a in found], np.float64),
            crowd=np.array([bool(a.get("iscrowd", 0)) for a in found], bool),
            segmentations=[a.get("segmentation") for a in found],
            height=int(record["height"]),
            width=int(record["width"]),
        )

    @cached_property
    def positives(self) -> np.ndarray:
        """(K, A) int64: annotations that count, per category and area range."""
        counts = np.zeros((len(self.categories), len(AREA_RANGES)), np.int64)
        for image_id in self.image_ids:
            truth = self.image(image_id)
            for area, ignored in enumerate(truth.ignored):
                np.add.at(counts[:, area], truth.categories[~ignored], 1)
        return counts


def _area(annotation: Mapping[str, Any]) -> float:
    """Square pixels of an annotation: those it states, or as Detectron2 works them out.

    Which is from the corners of polygons, the pixels of run lengths, or the sides of the box.
    """
    if "area" in annotation:
        return float(annotation["area"])
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, list) and segmentation:
        return float(sum(_polygon_area(np.asarray(p, np.float64)) for p in segmentation))
    if isinstance(segmentation, Mapping) and isinstance(segmentation["counts"], list):
        return float(sum(segmentation["counts"][1::2]))
    if isinstance(segmentation, Mapping):
        return float(mask_area(segmentation))
    box = BoxMode.convert(list(annotation["bbox"]), annotation["bbox_mode"], BoxMode.XYWH_ABS)
    return float(box[2] * box[3])


def _polygon_area(flat: np.ndarray) -> float:
    x, y = flat[0::2], flat[1::2]
    return 0.5 * abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))
