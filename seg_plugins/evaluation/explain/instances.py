"""What is behind the AP of saved instances."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..coco_engine import CocoEngine
from ..coco_truth import CocoTruth
from ..errors import EvaluationError
from ..instance_predictions import CONFIDENCE
from .calibration import best_scores, calibration
from .detections import match_detections
from .instance_confusion import instance_confusion
from .label_errors import label_errors
from .saved import SavedRun, saved_instances
from .slices import instance_image_slices, object_slices
from .tide import tide

#: Entries of a list that is shown with pictures.
MOST = 12


def explain_instances(run: SavedRun) -> dict[str, Any]:
    """TIDE, confusion, calibration, best scores and likely label errors.

    Returns:
        ``tide``, ``calibration`` and ``best_scores`` for each of ``bbox`` and ``segm``; and of
        masks, where there are any, or else of boxes, ``confusion`` (``classes``, ``counts``, the
        ``confidence``), ``object_slices``, ``image_slices`` and ``label_errors``, the surest
        of ``label_errors_found``. ``overlap`` says which of the two.

    Raises:
        EvaluationError: the predictions are of another evaluation.
    """
    truth = CocoTruth(run.dataset)
    found = saved_instances(run.predictions, truth)
    limit = _limit(run.results)
    engine = CocoEngine(truth, found, sorted({1, min(10, limit), limit}))
    names = truth.class_names
    images = run.slices([truth.record(p) for p in range(len(truth.image_ids))])
    explained: dict[str, Any] = {"tide": {}, "calibration": {}, "best_scores": {}}
    for task in ("bbox", "segm"):
        if task not in run.results:
            continue
        _check(run, task, engine)
        table = match_detections(truth, found, engine, task)
        explained["tide"][task] = tide(table)
        explained["calibration"][task] = calibration(table, names)
        explained["best_scores"][task] = best_scores(table, names)
        boxes = found.numbers().boxes
        suspicions = label_errors(table, truth, boxes, confidence=CONFIDENCE, most=len(table.score))
        explained |= {
            "overlap": task,
            "confusion": {
                "classes": names,
                "confidence": CONFIDENCE,
                "counts": instance_confusion(table, CONFIDENCE),
            },
            "object_slices": object_slices(table, truth, CONFIDENCE),
            "image_slices": instance_image_slices(table, images),
            "label_errors": suspicions[:MOST],
            "label_errors_found": len(suspicions),
        }
    return explained


def _limit(results: Mapping[str, Mapping[str, Any]]) -> int:
    """Detections per image and class that counted, as the names of the recalls say."""
    names = [name for figures in results.values() for name in figures]
    found = [name.removeprefix("AR@") for name in names if name.startswith("AR@")]
    return max((int(number) for number in found if number.isdigit()), default=100)


def _check(run: SavedRun, task: str, engine: CocoEngine) -> None:
    if task == "segm" and not engine.with_masks:
        raise EvaluationError(
            f"{run.predictions} has no masks, but the results beside it have: evaluate again."
        )
    run.check(task, "AP50", 100 * engine.curves(task).average_precision(threshold=0.5))
