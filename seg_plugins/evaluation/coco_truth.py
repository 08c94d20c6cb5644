"""COCO ground truth, image by image, in the arrays that matching needs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from seg_plugins.ops.run_length import RunLengthMasks

import numpy as np
import pycocotools.mask as coco_mask
from detectron2.data import MetadataCatalog
from detectron2.data.datasets.coco import convert_to_coco_dict
from detectron2.utils.file_io import PathManager

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
        categories: (G,) int64 index of the category in :attr:`CocoTruth.category_ids`.
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
        rles = [self._rle(segmentation) for segmentation in self.segmentations]
        return RunLengthMasks.from_coco(rles, self.height, self.width)

    def _rle(self, segmentation: Any) -> Mapping[str, Any]:
        if isinstance(segmentation, list):
            return coco_mask.merge(coco_mask.frPyObjects(segmentation, self.height, self.width))
        return segmentation


class CocoTruth:
    """The annotations of a data set.

    Args:
        content: a COCO instances dict: ``images``, ``categories`` and, where the truth is known,
            ``annotations``.
        source: where it comes from, for messages.
    """

    def __init__(self, content: Mapping[str, Any], source: str) -> None:
        self.source = source
        self.has_annotations = "annotations" in content
        self.category_ids = sorted({category["id"] for category in content["categories"]})
        self._images = {image["id"]: image for image in content["images"]}
        #: Image ids in the ascending order in which COCO breaks ties of the score.
        self.image_ids = sorted(self._images)
        self._annotations: dict[Any, list[Mapping[str, Any]]] = {}
        for annotation in content.get("annotations", ()):
            self._annotations.setdefault(annotation["image_id"], []).append(annotation)

    @classmethod
    def of_dataset(cls, dataset_name: str) -> CocoTruth:
        """From the ``json_file`` of the metadata, or else from the dataset's own dicts."""
        json_file = MetadataCatalog.get(dataset_name).get("json_file", None)
        if json_file is None:
            return cls(convert_to_coco_dict(dataset_name), dataset_name)
        with PathManager.open(json_file) as file:
            return cls(json.load(file), json_file)

    @cached_property
    def has_masks(self) -> bool:
        """Whether annotations come with masks."""
        return any(a.get("segmentation") for found in self._annotations.values() for a in found)

    def image(self, image_id: Any) -> ImageTruth:
        """The annotations of one image."""
        info = self._images[image_id]
        index = {category: i for i, category in enumerate(self.category_ids)}
        found = [a for a in self._annotations.get(image_id, ()) if a["category_id"] in index]
        found.sort(key=lambda annotation: index[annotation["category_id"]])  # stable
        return ImageTruth(
            categories=np.array([index[a["category_id"]] for a in found], np.int64),
            boxes=np.array([a["bbox"] for a in found], np.float64).reshape(-1, 4),
            areas=np.array([self._area(a) for a in found], np.float64),
            crowd=np.array([bool(a.get("iscrowd", 0)) for a in found], bool),
            segmentations=[a.get("segmentation") for a in found],
            height=info["height"],
            width=info["width"],
        )

    def _area(self, annotation: Mapping[str, Any]) -> float:
        if "area" not in annotation:
            raise EvaluationError(
                f"{self.source}: annotation {annotation.get('id')} has no 'area'; COCO's scores "
                f"by size need one."
            )
        return annotation["area"]

    @cached_property
    def positives(self) -> np.ndarray:
        """(K, A) int64: annotations that count, per category and area range."""
        counts = np.zeros((len(self.category_ids), len(AREA_RANGES)), np.int64)
        for image_id in self.image_ids:
            truth = self.image(image_id)
            for area, ignored in enumerate(truth.ignored):
                np.add.at(counts[:, area], truth.categories[~ignored], 1)
        return counts
