"""What is behind the AP of saved instances."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...data import Dataset
from ..coco_engine import CocoEngine
from ..coco_truth import CocoTruth
from ..errors import EvaluationError
from ..instance_predictions import CONFIDENCE
from .calibration import best_scores, calibration
from .detections import match_detections
from .instance_confusion import instance_confusion
from .label_errors import label_errors
from .saved import saved_instances
from .slices import images_by, instance_image_slices, object_slices
from .tide import tide

#: Entries of a list that is shown with pictures.
MOST = 12
#: The evaluator's rounding of 100 * AP after a file and back.
_SAME = 1e-6


def explain_instances(
    dataset: Dataset,
    predictions: Path,
    results: Mapping[str, Mapping[str, Any]],
    column: str = "",
) -> dict[str, Any]:
    """TIDE, confusion, calibration, best scores and likely label errors.

    Args:
        dataset: with annotations.
        predictions: ``coco_instances_results.json``.
        results: of the evaluation that wrote it: ``bbox`` and ``segm`` with ``AP50``.
        column: key of the dataset's records; AP50 is given for each of its values, too.

    Returns:
        ``tide``, ``calibration`` and ``best_scores`` for each of ``bbox`` and ``segm``; and of
        masks, where there are any, or else of boxes, ``confusion`` (``classes``, ``counts``, the
        ``confidence``), ``object_slices``, ``image_slices`` and ``label_errors``. ``overlap``
        says which of the two.

    Raises:
        EvaluationError: the predictions are of another evaluation.
    """
    truth = CocoTruth(dataset)
    found = saved_instances(predictions, truth)
    limit = _limit(results)
    engine = CocoEngine(truth, found, sorted({1, min(10, limit), limit}))
    names = truth.class_names
    images = images_by(column, [truth.record(p) for p in range(len(truth.image_ids))])
    explained: dict[str, Any] = {"tide": {}, "calibration": {}, "best_scores": {}}
    for task in ("bbox", "segm"):
        if task not in results:
            continue
        _check(predictions, task, engine, results[task])
        table = match_detections(truth, found, engine, task)
        explained["tide"][task] = tide(table)
        explained["calibration"][task] = calibration(table, names)
        explained["best_scores"][task] = best_scores(table, names)
        _, _, _, boxes = found.columns()
        explained |= {
            "overlap": task,
            "confusion": {
                "classes": names,
                "confidence": CONFIDENCE,
                "counts": instance_confusion(table, CONFIDENCE),
            },
            "object_slices": object_slices(table, truth, CONFIDENCE),
            "image_slices": instance_image_slices(table, images),
            "label_errors": label_errors(table, truth, boxes, confidence=CONFIDENCE, most=MOST),
        }
    return explained


def _limit(results: Mapping[str, Mapping[str, Any]]) -> int:
    """Detections per image and class that counted, as the names of the recalls say."""
    names = [name for figures in results.values() for name in figures]
    found = [name.removeprefix("AR@") for name in names if name.startswith("AR@")]
    return max((int(number) for number in found if number.isdigit()), default=100)


def _check(path: Path, task: str, engine: CocoEngine, figures: Mapping[str, Any]) -> None:
    if task == "segm" and not engine.with_masks:
        raise EvaluationError(
            f"{path} has no masks, but the results beside it have: evaluate again."
        )
    stated = figures.get("AP50")
    value = 100 * engine.curves(task).average_precision(threshold=0.5)
    same = np.isnan(value) if stated is None else abs(value - stated) < _SAME
    if not same:
        raise EvaluationError(
            f"{path} is of another evaluation than the results beside it: {task}/AP50 is "
            f"{value:.4f} and not {stated}. Evaluate again with TEST.SAVE_PREDICTIONS True."
        )
