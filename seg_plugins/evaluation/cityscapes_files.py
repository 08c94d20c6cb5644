"""Cityscapes' file names and label table, as the evaluators use them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from cityscapesscripts.helpers.labels import id2label, labels

from .errors import EvaluationError

__all__ = [
    "EVALUATED",
    "IGNORE",
    "INSTANCE_LABELS",
    "VOID_IDS",
    "frame_name",
    "ground_truth_files",
    "id_of_train_id",
    "label_of",
    "train_id_of_id",
]

#: Train id of pixels that are not evaluated.
IGNORE = 255
#: The evaluated labels in the order of their train ids.
EVALUATED = sorted((x for x in labels if not x.ignoreInEval), key=lambda x: x.trainId)
#: The evaluated labels that have instances, in table order.
INSTANCE_LABELS = [x for x in labels if x.hasInstances and not x.ignoreInEval]
#: Ids of the labels that are not evaluated.
VOID_IDS = frozenset(x.id for x in labels if x.ignoreInEval)


def label_of(instance_id: int) -> Any:
    """The label of a value of an ``instanceIds`` image: label id, or label id * 1000 + number."""
    label_id = instance_id if instance_id < 1000 else instance_id // 1000
    if label_id not in id2label:
        raise EvaluationError(f"the instance id {instance_id} belongs to no Cityscapes label.")
    return id2label[label_id]


def train_id_of_id() -> np.ndarray:
    """(256,) uint8 table from label id to train id, `IGNORE` where not evaluated."""
    table = np.full(256, IGNORE, np.uint8)
    for label in EVALUATED:
        table[label.id] = label.trainId
    return table


def id_of_train_id() -> np.ndarray:
    """(256,) uint8 table from train id to label id; 0 ("unlabeled") for others."""
    table = np.zeros(256, np.uint8)
    for label in EVALUATED:
        table[label.trainId] = label.id
    return table


def frame_name(path: str | Path) -> str:
    """``city_sequence_frame`` of any Cityscapes file."""
    parts = Path(path).name.split("_")
    if len(parts) < 4:
        raise EvaluationError(
            f"{path} is not named as Cityscapes does: <city>_<sequence>_<frame>_<kind>.<type>."
        )
    return "_".join(parts[:3])


def ground_truth_files(folder: str | Path, kind: str) -> dict[str, Path]:
    """The ground-truth images of a split by frame, in the order of their names.

    Args:
        folder: ``gtFine/<split>``, with one folder per city.
        kind: ``instanceIds`` or ``labelIds``.
    """
    files = sorted(Path(folder).glob(f"*/*_gtFine_{kind}.png"))
    if not files:
        raise EvaluationError(f"No *_gtFine_{kind}.png in the city folders of {folder}.")
    return {frame_name(file): file for file in files}
