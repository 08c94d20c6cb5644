"""COCO ground truth of a dataset: once for the engine, and image by image for Boundary AP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from seg_plugins.ops.run_length import RunLengthMasks

import hotcoco
import numpy as np
from detectron2.structures import BoxMode

from ..data import Dataset
from ..io.masks import mask_area, to_run_lengths
from .average_precision import AREA_RANGES
from .errors import EvaluationError

#: The one class of class-agnostic scores.
ANY_CLASS = "object"


@dataclass(frozen=True)
class ImageTruth:
    """The G annotations of one image, sorted by category.

    Attributes:
        categories: (G,) int64 index of the class in :attr:`CocoTruth.class_names`.
        areas: (G,) float64 square pixels, as annotated.
        crowd: (G,) bool.
        segmentations: G polygons or run-length masks, as annotated.
        height: Rows of the image.
        width: Columns of the image.
    """

    categories: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    segmentations: Sequence[Any]
    height: int
    width: int

    def masks(self) -> RunLengthMasks:
        """The annotations' masks, rasterised as COCO does."""
        rles = [to_run_lengths(s, self.height, self.width) for s in self.segmentations]
        return RunLengthMasks.from_coco(rles, self.height, self.width)


class CocoTruth:
    """The instances of a dataset, in the order of its classes.

    Args:
        dataset: with instance truth, of its own or in the ``json_file`` beside it.
        class_agnostic: score all classes as one, :data:`ANY_CLASS`: pycocotools' ``useCats = 0``.

    Raises:
        EvaluationError: an image stands twice, or only some annotations have a mask.
    """

    def __init__(self, dataset: Dataset, class_agnostic: bool = False) -> None:
        self.source = dataset.source
        self.class_agnostic = class_agnostic
        records = {record["image_id"]: record for record in dataset.instance_records}
        if len(records) != len(dataset.instance_records):
            raise EvaluationError(f"{self.source}: an image_id stands for two images.")
        #: Image ids in the ascending order in which COCO breaks ties of the score. The place of
        #: an image among them is its position.
        self.image_ids = sorted(records)
        self._records = [records[image_id] for image_id in self.image_ids]
        #: Whether the truth is known; it is not for hidden test sets.
        self.has_annotations = any("annotations" in record for record in self._records)
        #: (predicted class, id in the dataset's file, name) of each category.
        self.categories = dataset.instance_classes
        self.has_masks = self._check_masks()

    def _check_masks(self) -> bool:
        """Whether annotations come with masks: all of them or none."""
        found = [(r, a) for r in self._records for a in r.get("annotations", ())]
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
        """Names of the classes that are scored."""
        return [ANY_CLASS] if self.class_agnostic else [name for _, _, name in self.categories]

    @property
    def category_ids(self) -> list[int]:
        """The classes' ids in the dataset's file."""
        return [category for _, category, _ in self.categories]

    def categories_of(self, classes: np.ndarray) -> np.ndarray:
        """(N,) int64 index in :attr:`categories` of classes that a model predicts, -1 of none."""
        return self._category_of_class.take(classes + 1, mode="clip")

    @cached_property
    def _category_of_class(self) -> np.ndarray:
        """Shifted by one, with -1 at both ends, where classes out of range are clipped to."""
        classes = np.array([c for c, _, _ in self.categories], np.int64)
        found = np.full(classes.max(initial=-1) + 3, -1, np.int64)
        found[classes + 1] = np.arange(len(classes))
        return found

    def scored_as(self, categories: np.ndarray) -> np.ndarray:
        """(N,) indices in :attr:`class_names` of indices in :attr:`categories`."""
        return np.zeros_like(categories) if self.class_agnostic else categories

    def record(self, position: int) -> Mapping[str, Any]:
        """The dict of an image."""
        return self._records[position]

    def size(self, position: int) -> tuple[int, int]:
        """Height and width of an image in pixels.

        Raises:
            EvaluationError: its record does not say.
        """
        record = self._records[position]
        if not {"height", "width"} <= record.keys():
            raise EvaluationError("its record has no height and width, which scores need.")
        return int(record["height"]), int(record["width"])

    def image(self, position: int) -> ImageTruth:
        """The annotations of one image."""
        height, width = self.size(position)
        annotations = self._records[position].get("annotations", ())
        found = sorted(annotations, key=lambda a: a["category_id"])  # stable
        return ImageTruth(
            categories=self._categories(found),
            areas=np.array([area_of(a) for a in found], np.float64),
            crowd=np.array([bool(a.get("iscrowd", 0)) for a in found], bool),
            segmentations=[a.get("segmentation") for a in found],
            height=height,
            width=width,
        )

    @cached_property
    def annotations(self) -> list[tuple[int, Mapping[str, Any]]]:
        """(position of its image, annotation) of all, in the order of the engine's ids."""
        return [(p, a) for p, r in enumerate(self._records) for a in r.get("annotations", ())]

    def engine_dataset(self, positions: Sequence[int] | None = None) -> hotcoco.COCO:
        """The truth as the engine takes it: ids are 1 + position, 1 + category and 1 ... N.

        The file's own ids stay outside: pycocotools and those that equal it take an annotation
        with id 0 for "unmatched".

        Args:
            positions: of the images; None of all. The ids stay the same.

        Raises:
            EvaluationError: run lengths of another size than their image.
        """
        if positions is None:
            return self._whole_dataset
        return self._dataset_of(positions)

    @cached_property
    def _whole_dataset(self) -> hotcoco.COCO:
        return self._dataset_of(range(len(self.image_ids)))

    @cached_property
    def _first_ids(self) -> np.ndarray:
        """(I,) the engine's id of the first annotation of each image."""
        counts = [len(record.get("annotations", ())) for record in self._records]
        return np.cumsum([1, *counts[:-1]])

    def _dataset_of(self, positions: Sequence[int]) -> hotcoco.COCO:
        images, found = [], []
        ids: list[int] = []
        for position in positions:
            image_id = self.image_ids[position]
            try:
                height, width = self.size(position)
            except EvaluationError as error:
                raise EvaluationError(f"{self.source}: image {image_id}: {error}") from error
            images.append({"id": int(position) + 1, "height": height, "width": width})
            annotations = self._records[position].get("annotations", ())
            first = self._first_ids[position]
            ids += range(first, first + len(annotations))
            found += [(position, annotation) for annotation in annotations]
        boxes = [box_of(annotation) for _, annotation in found]
        return hotcoco.COCO.from_arrays(
            images,
            [{"id": k + 1, "name": name} for k, name in enumerate(self.class_names)],
            np.array([position + 1 for position, _ in found], np.int64),
            self._categories([annotation for _, annotation in found]) + 1,
            np.array(boxes, np.float64).reshape(-1, 4),
            ids=np.array(ids, np.int64),
            area=np.array([area_of(a) for _, a in found], np.float64),
            iscrowd=np.array([bool(a.get("iscrowd", 0)) for _, a in found], bool),
            segmentation=[self._mask(p, a) for p, a in found] if self.has_masks else None,
        )

    @cached_property
    def counted_objects(self) -> tuple[np.ndarray, np.ndarray]:
        """Position and category, (G,) int32 each, of the annotations that count at any size.

        Crowds do not.
        """
        low, high = AREA_RANGES[0]
        found = [
            (position, annotation["category_id"])
            for position, annotation in self.annotations
            if low <= area_of(annotation) <= high and not annotation.get("iscrowd", 0)
        ]
        positions, categories = np.array(found, np.int32).reshape(-1, 2).T
        return positions, self.scored_as(categories)

    @property
    def counted(self) -> np.ndarray:
        """(I,) int64: how many of them each image has."""
        return np.bincount(self.counted_objects[0], minlength=len(self._records))

    def _categories(self, annotations: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """(N,) int64 indices in :attr:`class_names`."""
        return self.scored_as(np.array([a["category_id"] for a in annotations], np.int64))

    def _mask(self, position: int, annotation: Mapping[str, Any]) -> Any:
        mask = annotation["segmentation"]
        if not isinstance(mask, Mapping):
            return [p.tolist() if isinstance(p, np.ndarray) else p for p in mask]
        if tuple(mask["size"]) != self.size(position):
            raise EvaluationError(
                f"{self.source}: annotation {annotation.get('id', 'one')} of image "
                f"{self.image_ids[position]}: its run lengths are of a mask of "
                f"{tuple(mask['size'])}, the image is {self.size(position)} (height, width)."
            )
        return mask


def box_of(annotation: Mapping[str, Any]) -> list[float]:
    """x, y, width and height in pixels."""
    if annotation["bbox_mode"] == BoxMode.XYWH_ABS:
        return list(annotation["bbox"])  # converting what is so already takes 20 microseconds
    return BoxMode.convert(list(annotation["bbox"]), annotation["bbox_mode"], BoxMode.XYWH_ABS)


def area_of(annotation: Mapping[str, Any]) -> float:
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
    _, _, width, height = box_of(annotation)
    return float(width * height)


def _polygon_area(flat: np.ndarray) -> float:
    x, y = flat[0::2], flat[1::2]
    return 0.5 * abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))
