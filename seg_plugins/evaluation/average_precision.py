"""COCO's average precision and recall from matched detections, in a few arrays.

The curves are those of pycocotools' ``accumulate``, digit for digit; see
http://cocodataset.org/#detection-eval for the measures.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .coco_truth import AREA_RANGES
from .confusion import divide

IOU_THRESHOLDS = np.linspace(0.5, 0.95, int(np.round((0.95 - 0.5) / 0.05)) + 1, endpoint=True)
RECALL_STEPS = np.linspace(0.0, 1.0, int(np.round(1.0 / 0.01)) + 1, endpoint=True)
AREA_SUFFIXES = ("", "s", "m", "l")
# One bit per area range and threshold.
FLAG_BYTES = (len(AREA_RANGES) * len(IOU_THRESHOLDS) + 7) // 8


def pack_flags(flags: np.ndarray) -> np.ndarray:
    """(A, T, D) bool as (D, FLAG_BYTES) uint8."""
    areas, steps, detections = flags.shape
    return np.packbits(flags.reshape(areas * steps, detections), axis=0).T


def unpack_flags(packed: np.ndarray) -> np.ndarray:
    """The inverse of :func:`pack_flags`."""
    areas, steps = len(AREA_RANGES), len(IOU_THRESHOLDS)
    bits = np.unpackbits(np.ascontiguousarray(packed.T), axis=0)[: areas * steps]
    return bits.reshape(areas, steps, len(packed)).astype(bool)


class PrecisionRecall:
    """Precision-recall curves of a set of categories.

    Args:
        categories: (D,) category index of each detection.
        scores: (D,) float64.
        ranks: (D,) place of the detection among those of its image and category, from 0.
        hits: (D, FLAG_BYTES) packed flags: a truth that counts was found.
        misses: (D, FLAG_BYTES): none was found, and that counts.
        positives: (K, A) truths that count.
        limits: the numbers of detections per image and category that recall is asked for; the
            last one holds for precision.

    Detections that share a score must come in the order of their images.

    Attributes:
        precision: (T, R, K, A) float64 at the recall steps; -1 where there is no truth.
        recall: (T, K, A, M) float64; -1 where there is no truth.
    """

    def __init__(
        self,
        *,
        categories: np.ndarray,
        scores: np.ndarray,
        ranks: np.ndarray,
        hits: np.ndarray,
        misses: np.ndarray,
        positives: np.ndarray,
        limits: Sequence[int] = (1, 10, 100),
    ) -> None:
        self.limits = tuple(limits)
        num_classes, num_areas = positives.shape
        shape = (len(IOU_THRESHOLDS), len(RECALL_STEPS), num_classes, num_areas)
        self.precision = -np.ones(shape)
        self.recall = -np.ones((shape[0], num_classes, num_areas, len(self.limits)))
        order = np.lexsort((-scores, categories))
        bounds = np.searchsorted(categories[order], np.arange(num_classes + 1))
        for k in range(num_classes):
            chosen = order[bounds[k] : bounds[k + 1]]
            hit, miss = unpack_flags(hits[chosen]), unpack_flags(misses[chosen])
            for area in np.flatnonzero(positives[k]):
                wanted = positives[k, area]
                for m, limit in enumerate(self.limits):
                    found = hit[area][:, ranks[chosen] < limit].sum(axis=1)
                    self.recall[:, k, area, m] = found / wanted
                self.precision[:, :, k, area] = precision_at_recalls(hit[area], miss[area], wanted)

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
        self, *, threshold: float | None = None, area: int = 0, category: int | None = None
    ) -> float:
        """Mean precision over recall steps, thresholds and categories; NaN without truth.

        Args:
            threshold: one of the overlaps; None takes the mean of all.
            area: index of the area range: all, small, medium, large.
            category: index of a category; None takes the mean of all.
        """
        curves = self.precision[..., area]
        if threshold is not None:
            curves = curves[np.isclose(IOU_THRESHOLDS, threshold)]
        return _mean(curves if category is None else curves[:, :, category])

    def curve(self, *, threshold: float | None = None, category: int | None = None) -> np.ndarray:
        """(R,) precision at :data:`RECALL_STEPS` of objects of all sizes; NaN without truth.

        Arguments as of :meth:`average_precision`.
        """
        curves = self.precision[..., 0]
        if threshold is not None:
            curves = curves[np.isclose(IOU_THRESHOLDS, threshold)]
        curves = curves if category is None else curves[:, :, [category]]
        known = curves > -1
        return divide(np.where(known, curves, 0).sum(axis=(0, 2)), known.sum(axis=(0, 2)))

    def save(self, path: Path, class_names: Sequence[str]) -> None:
        """Write all curves as ``.npz``."""
        np.savez_compressed(
            path,
            precision=self.precision,
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
