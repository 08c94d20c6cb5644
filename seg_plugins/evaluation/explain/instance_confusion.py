"""Classes taken for each other and for the background, among sure detections."""

from __future__ import annotations

import numpy as np

from .detections import DetectionTable
from .tide import FOUND


def instance_confusion(table: DetectionTable, confidence: float) -> np.ndarray:
    """(K + 1, K + 1) int64 numbers of objects, true class by predicted one; background is last.

    What AP counts as found is on the diagonal. Then a mistake that overlaps an object of another
    class by IoU 0.5, which nothing has found, is confused with it, the surer ones first. The
    detections that remain are in the last row, the objects that remain in the last column.
    Detections in crowds count nowhere (hotcoco 1.3.0's matrix has them in the last row).

    Args:
        table: of all detections.
        confidence: the score from which a detection counts.
    """
    background = table.classes
    counted = np.zeros((background + 1, background + 1), np.int64)
    sure = table.counts & (table.score >= confidence)
    free = ~table.crowd
    found = table.matched[sure & table.hit]
    free[found] = False
    np.add.at(counted, (table.truth_category[found], table.truth_category[found]), 1)
    for i in table.order:
        if not sure[i] or table.hit[i]:
            continue
        truth = table.other[i]
        confused = table.other_iou[i] >= FOUND and free[truth]
        if confused:
            free[truth] = False
        row = table.truth_category[truth] if confused else background
        counted[row, table.category[i]] += 1
    np.add.at(counted, (table.truth_category[free], background), 1)
    return counted
