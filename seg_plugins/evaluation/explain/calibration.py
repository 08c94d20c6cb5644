"""Whether a score says how often a detection is right, and the score that balances both errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import hotcoco
import numpy as np

from ..confusion import divide
from .detections import DetectionTable

BINS = 10


def calibration(table: DetectionTable, class_names: Sequence[str]) -> dict[str, Any] | None:
    """Expected calibration error and the bins of a reliability diagram, by hotcoco.

    A detection is right when it found an object at IoU 0.5; one in a crowd does not count.

    Args:
        table: of all detections.
        class_names: K names.

    Returns:
        ``ECE`` and ``MCE`` (mean gap weighted by detections, and largest) and ``ECE_by_class`` in
        percent, None without detections; ``bins`` of equal width with ``score`` and ``right``
        (means in 0..1, None of an empty bin) and ``detections``. None where the scores are not
        within 0..1 and so are no probabilities.
    """
    score, hit, category = (c[table.counts] for c in (table.score, table.hit, table.category))
    if len(score) and not (score.min() >= 0 and score.max() <= 1):
        return None
    errors: dict[str, float | None] = {}
    for k, name in enumerate(class_names):
        errors[name], _ = _errors(score[category == k], hit[category == k])
    expected, most = _errors(score, hit)
    bins = []
    for part in hotcoco.metrics.calibration_curve(score, hit, BINS):
        there = part["count"] > 0
        bins.append(
            {
                "from": round(part["bin_lower"], 6),
                "to": round(part["bin_upper"], 6),
                "score": part["avg_confidence"] if there else None,
                "right": part["avg_accuracy"] if there else None,
                "detections": part["count"],
            }
        )
    return {"ECE": expected, "MCE": most, "ECE_by_class": errors, "bins": bins}


def _errors(score: np.ndarray, hit: np.ndarray) -> tuple[float | None, float | None]:
    if not len(score):
        return None, None
    expected, most = hotcoco.metrics.calibration_error(score, hit, BINS)
    return 100 * expected, 100 * most


def best_scores(table: DetectionTable, class_names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """For each class the score from which its detections have the highest F1 at IoU 0.5.

    Args:
        table: of all detections.
        class_names: K names.

    Returns:
        class -> ``from_score``, ``F1``, ``precision`` and ``recall`` in percent, and ``objects``;
        figures are None where nothing was predicted or nothing is there.
    """
    order = table.order[table.counts[table.order]]
    rows: dict[str, dict[str, Any]] = {}
    for k, name in enumerate(class_names):
        own = order[table.category[order] == k]
        wanted = int(table.wanted[k])
        row: dict[str, Any] = dict.fromkeys(("from_score", "F1", "precision", "recall"))
        if len(own) and wanted:
            score, hits = table.score[own], np.cumsum(table.hit[own])
            number = np.arange(1, len(own) + 1)
            f1 = divide(2 * hits, number + wanted)
            # A threshold takes all detections of its score or none.
            f1[:-1][score[:-1] == score[1:]] = -1
            best = int(f1.argmax())
            row = {
                "from_score": float(score[best]),
                "F1": 100 * float(f1[best]),
                "precision": 100 * float(hits[best] / number[best]),
                "recall": 100 * float(hits[best] / wanted),
            }
        rows[name] = {**row, "objects": wanted}
    return rows
