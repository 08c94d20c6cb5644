"""Predictions as evaluators save them (``TEST.SAVE_PREDICTIONS``), read back to be explained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from seg_plugins.ops.run_length import RunLengthMasks

import numpy as np

from ...data import Dataset
from ...io.masks import to_bitmask
from ..coco_engine import FoundInstances
from ..coco_truth import CocoTruth
from ..errors import EvaluationError


def saved_instances(path: Path, truth: CocoTruth) -> FoundInstances:
    """The detections of ``coco_instances_results.json``.

    Args:
        path: COCO's result format, as :class:`~seg_plugins.evaluation.InstanceEvaluator` writes.
        truth: of the dataset that it was written for.

    Raises:
        EvaluationError: damaged, or of another dataset.
    """
    position = {image_id: p for p, image_id in enumerate(truth.image_ids)}
    category = {number: k for k, number in enumerate(truth.category_ids)}
    found = FoundInstances()
    records: list[dict[str, Any]] = _read(path, list)
    unknown = {record["image_id"] for record in records} - position.keys()
    if unknown:
        raise EvaluationError(f"{path}: image {min(unknown)} is not in {truth.source}.")
    by_image: dict[Any, list[dict[str, Any]]] = {}
    for record in records:
        by_image.setdefault(record["image_id"], []).append(record)
    for image_id, own in by_image.items():
        strange = [r["category_id"] for r in own if r["category_id"] not in category]
        if strange:
            raise EvaluationError(f"{path}: category {strange[0]} is none of {truth.source}.")
        place = position[image_id]
        masks = None
        if truth.has_masks and all("segmentation" in record for record in own):
            rles = [record["segmentation"] for record in own]
            masks = RunLengthMasks.from_coco(rles, *truth.size(place))
        found.add(
            place,
            np.array([record["bbox"] for record in own], np.float64),
            np.array([record["score"] for record in own], np.float64),
            np.array([category[record["category_id"]] for record in own], np.int64),
            masks,
        )
    if not records:
        found.with_masks = truth.has_masks
    return found


class SavedLabels:
    """The label maps of ``sem_seg_predictions.json``.

    Args:
        path: Detectron2's list of run-length masks by image and class.
        dataset: that it was written for.

    Raises:
        EvaluationError: damaged, or of another dataset.
    """

    def __init__(self, path: Path, dataset: Dataset) -> None:
        position = {record["file_name"]: p for p, record in enumerate(dataset.records)}
        ids = [kind.category_ids for kind in (dataset.things, dataset.stuff) if kind.numbered]
        self._label_of = {number: label for kind in ids for label, number in kind.items()}
        self._void = len(dataset.stuff)
        self._records: dict[int, list[dict[str, Any]]] = {}
        for record in _read(path, list):
            if record["file_name"] not in position:
                raise EvaluationError(
                    f"{path}: {record['file_name']} is no image of '{dataset.name}'."
                )
            self._records.setdefault(position[record["file_name"]], []).append(record)

    def read(self, position: int, size: tuple[int, int]) -> np.ndarray:
        """(H, W) uint16 labels of the record at `position`; K where nothing was predicted.

        Args:
            position: of the record.
            size: of its ground truth, height and width.

        Raises:
            EvaluationError: another size.
        """
        labels = np.full(size, self._void, np.uint16)
        for record in self._records.get(position, ()):
            mask = record["segmentation"]
            if tuple(mask["size"]) != size:
                raise EvaluationError(
                    f"the saved labels of {record['file_name']} are of {tuple(mask['size'])}, its "
                    f"ground truth of {size} (height, width): evaluate again."
                )
            number = record["category_id"]
            labels[to_bitmask(mask, *size)] = self._label_of.get(number, number)
        return labels


def saved_panoptic(path: Path) -> list[dict[str, Any]]:
    """The ``annotations`` of ``panoptic_predictions.json``, with the paths of their PNGs.

    Raises:
        EvaluationError: damaged.
    """
    content: dict[str, Any] = _read(path, dict)
    folder = path.with_suffix("")
    found = content.get("annotations", [])
    return [{**entry, "path": folder / entry["file_name"]} for entry in found]


def _read(path: Path, kind: type) -> Any:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{path} cannot be read ({error}): evaluate again.") from error
    if not isinstance(content, kind):
        raise EvaluationError(f"{path} holds no {kind.__name__} of predictions: evaluate again.")
    return content
