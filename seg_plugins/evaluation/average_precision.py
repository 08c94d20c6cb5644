"""COCO's average precision and recall, read from precision and recall arrays.

See http://cocodataset.org/#detection-eval for the measures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .confusion import divide

IOU_THRESHOLDS = np.linspace(0.5, 0.95, int(np.round((0.95 - 0.5) / 0.05)) + 1, endpoint=True)
RECALL_STEPS = np.linspace(0.0, 1.0, int(np.round(1.0 / 0.01)) + 1, endpoint=True)
# COCO's area ranges in square pixels, ends included: all, small, medium, large.
AREA_RANGES = np.array([[0, 1e5**2], [0, 32**2], [32**2, 96**2], [96**2, 1e5**2]], dtype=np.float64)
AREA_SUFFIXES = ("", "s", "m", "l")


@dataclass(frozen=True)
class PrecisionRecall:
    """The curves of all classes, as pycocotools' ``accumulate`` lays them out.

    T are :data:`IOU_THRESHOLDS`, R :data:`RECALL_STEPS`, K the classes, A :data:`AREA_RANGES` and
    M the `limits`.

    Attributes:
        precision: (T, R, K, A, M) float64 at the recall steps; -1 where there is no truth.
        recall: (T, K, A, M) float64; -1 where there is no truth.
        limits: the numbers of detections per image and class that count, ascending. The last
            one holds wherever none is named.
    """

    precision: np.ndarray
    recall: np.ndarray
    limits: tuple[int, ...]

    def summary(self) -> dict[str, float]:
        """COCO's twelve numbers, 0..1, under Detectron2's names; NaN without truth."""
        last = self.limits[-1]
        scores = {
            "AP": self.average_precision(),
            "AP50": self.average_precision(threshold=0.5),
            "AP75": self.average_precision(threshold=0.75),
        }
        for area, suffix in enumerate(AREA_SUFFIXES[1:], start=1):
            scores[f"AP{suffix}"] = self.average_precision(area=area)
        for m, limit in enumerate(self.limits):
            scores[f"AR@{limit}"] = _mean(self.recall[:, :, 0, m])
        for area, suffix in enumerate(AREA_SUFFIXES[1:], start=1):
            scores[f"AR{suffix}@{last}"] = _mean(self.recall[:, :, area, -1])
        return scores

    def average_precision(
        self,
        *,
        threshold: float | None = None,
        area: int = 0,
        category: int | None = None,
        limit: int | None = None,
    ) -> float:
        """Mean precision over recall steps, thresholds and classes; NaN without truth.

        Args:
            threshold: one of the overlaps; None takes the mean of all.
            area: index of the area range: all, small, medium, large.
            category: index of a class; None takes the mean of all.
            limit: one of `limits`; None takes the last.
        """
        curves = self.precision[..., area, -1 if limit is None else self.limits.index(limit)]
        if threshold is not None:
            curves = curves[np.isclose(IOU_THRESHOLDS, threshold)]
        return _mean(curves if category is None else curves[:, :, category])

    def by_class(self) -> list[float]:
        """:meth:`average_precision` of each class, at once."""
        thresholds, steps, classes = self.precision.shape[:3]
        # Side by side in memory: the order of a sum decides its last bits.
        curves = np.ascontiguousarray(np.moveaxis(self.precision[..., 0, -1], 2, 0))
        rows = curves.reshape(classes, thresholds * steps)
        known = (rows > -1).sum(axis=1)
        whole = rows.mean(axis=1).tolist()
        return [whole[k] if known[k] == rows.shape[1] else _mean(rows[k]) for k in range(len(rows))]

    def curve(self, *, threshold: float | None = None, category: int | None = None) -> np.ndarray:
        """(R,) precision at :data:`RECALL_STEPS` of objects of all sizes; NaN without truth.

        Arguments as of :meth:`average_precision`.
        """
        curves = self.precision[..., 0, -1]
        if threshold is not None:
            curves = curves[np.isclose(IOU_THRESHOLDS, threshold)]
        curves = curves if category is None else curves[:, :, [category]]
        known = curves > -1
        return divide(np.where(known, curves, 0).sum(axis=(0, 2)), known.sum(axis=(0, 2)))

    def save(self, path: Path, class_names: Sequence[str]) -> None:
        """Write the curves at the last limit as ``.npz``."""
        np.savez_compressed(
            path,
            precision=self.precision[..., -1],
            recall=self.recall,
            iou_thresholds=IOU_THRESHOLDS,
            recall_steps=RECALL_STEPS,
            classes=np.array(class_names),
        )


def _mean(values: np.ndarray) -> float:
    values = values[values > -1]
    return float(np.mean(values)) if values.size else float("nan")


def precision_at_recalls(hit: np.ndarray, miss: np.ndarray, wanted: int) -> np.ndarray:
    """(T, R) best precision at :data:`RECALL_STEPS` or beyond.

    Args:
        hit: (T, D) whether a detection found a truth, at T thresholds, by falling score.
        miss: (T, D) whether it is a mistake.
        wanted: truths.
    """
    hits = np.cumsum(hit, axis=1, dtype=np.float64)
    misses = np.cumsum(miss, axis=1, dtype=np.float64)
    recall = hits / wanted
    precision = hits / (misses + hits + np.spacing(1))
    # The best precision at this recall or a higher one.
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    curve = np.zeros((len(hit), len(RECALL_STEPS)))
    for step in range(len(hit)):
        first = np.searchsorted(recall[step], RECALL_STEPS, side="left")
        reached = first < hit.shape[1]
        curve[step, reached] = precision[step, first[reached]]
    return curve
