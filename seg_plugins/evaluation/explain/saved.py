"""Predictions as evaluators save them (``TEST.SAVE_PREDICTIONS``), read back to be explained.

:mod:`seg_plugins.data.result_files` reads and checks the files; here they become what the
explanations work on, and have to be those of the results beside them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from seg_plugins.ops.run_length import RunLengthMasks, mask_areas

import numpy as np

from ...data import Dataset, DatasetError
from ...data.result_files.detections import detections_of
from ...data.result_files.label_maps import label_map, masks_by_image
from ...data.result_files.listed import ResultFile, read_result_file
from ...data.result_files.segments import panoptic_results
from ..coco_truth import CocoTruth
from ..errors import EvaluationError
from ..file_outputs import check_run_lengths
from ..found_instances import FoundInstances
from .slices import images_by

Content = TypeVar("Content")
# The evaluator's rounding after a file and back.
_SAME = 1e-6


@dataclass(frozen=True)
class SavedRun:
    """What an evaluation saved of one task.

    Attributes:
        dataset: with annotations.
        predictions: the file that the evaluator wrote (``TEST.SAVE_PREDICTIONS``).
        results: group -> figure -> value, as the same evaluation gave them.
        column: key of the dataset's records; scores are given for each of its values, too, as
            ``image_slices``. "": of none.
    """

    dataset: Dataset
    predictions: Path
    results: Mapping[str, Mapping[str, Any]]
    column: str = ""

    def check(self, group: str, metric: str, value: float | None) -> None:
        """Raise EvaluationError where a figure of the predictions is not that of the results.

        Args:
            group: of the figure.
            metric: its name.
            value: of the predictions; None or NaN: there is none.
        """
        stated = self.results.get(group, {}).get(metric)
        value = None if value is None or math.isnan(value) else value
        if value is None or stated is None:
            same = value is stated
        else:
            same = abs(value - stated) < _SAME
        if not same:
            raise EvaluationError(
                f"{self.predictions} is of another evaluation than the results beside it: "
                f"{group}/{metric} is {value} and not {stated}. Evaluate again with "
                "TEST.SAVE_PREDICTIONS True."
            )

    def slices(self, records: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
        """The parts that `column` makes of records."""
        return images_by(self.column, records)


@contextmanager
def of_file(path: Path, what: str) -> Iterator[None]:
    """Give errors of what a file holds its name.

    Args:
        path: the file.
        what: part of it, for the message.
    """
    try:
        yield
    except EvaluationError:
        raise
    except (ValueError, OSError) as error:
        raise EvaluationError(f"{path}: {what}: {error}: evaluate again.") from error


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
    _, saved = _read(path, detections_of)
    found = FoundInstances()
    for image_id, own in saved.by_image.items():
        if image_id not in position:
            raise EvaluationError(f"{path}: image {image_id} is not in {truth.source}.")
        strange = [number for number in own.categories.tolist() if number not in category]
        if strange:
            raise EvaluationError(f"{path}: category {strange[0]} is none of {truth.source}.")
        place = position[image_id]
        masks = None
        if truth.has_masks and own.masks is not None:
            with of_file(path, f"image {image_id}"):
                masks = RunLengthMasks.from_coco(own.masks, *truth.size(place))
                mask_areas(masks)  # which refuses lengths that do not fill the image
        classes = np.array([category[number] for number in own.categories.tolist()], np.int64)
        found.add(place, own.boxes, own.scores, classes, masks)
    if not saved.by_image:
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
        self._class_of = {number: k for k, number in dataset.label_category_ids.items()}
        self._void = len(dataset.stuff)
        self._file, by_name = _read(path, masks_by_image)
        for name in by_name:
            if name not in position:
                raise EvaluationError(f"{path}: {name} is no image of '{dataset.name}'.")
        self._places = {position[name]: places for name, places in by_name.items()}

    def read(self, position: int, size: tuple[int, int]) -> np.ndarray:
        """(H, W) labels of the record at `position`; K where nothing was predicted.

        Args:
            position: of the record.
            size: of its ground truth, height and width.

        Raises:
            EvaluationError: another size, or masks that contradict each other.
        """
        if position not in self._places:
            return np.full(size, self._void, np.int32)
        places = self._places[position]
        name = self._file.records[places[0]]["file_name"]
        with of_file(self._file.path, name):
            check_run_lengths(self._file, places)
            labels = label_map(self._file, places, self._class_of, self._void)
        if labels.shape != size:
            raise EvaluationError(
                f"the saved labels of {name} are of {labels.shape}, its ground truth of {size} "
                "(height, width): evaluate again."
            )
        return labels


def saved_panoptic(path: Path) -> list[dict[str, Any]]:
    """The images of ``panoptic_predictions.json``: ``image_id``, ``path`` of the PNG, segments.

    Raises:
        EvaluationError: damaged.
    """
    _, results = _read(path, panoptic_results)
    return [
        {
            "image_id": result.image_id,
            "path": result.png,
            "segments_info": [{"id": i, "category_id": k} for i, k in result.segments],
        }
        for result in results
    ]


def _read(path: Path, take: Callable[[ResultFile], Content]) -> tuple[ResultFile, Content]:
    try:
        file = read_result_file(path)
        return file, take(file)
    except DatasetError as error:
        raise EvaluationError(f"{path} cannot be read ({error}): evaluate again.") from error
