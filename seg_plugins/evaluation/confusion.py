"""Scores from a confusion matrix: the figures of Detectron2's SemSegEvaluator and a few more."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike


def divide(numerator: ArrayLike, denominator: ArrayLike) -> np.ndarray:
    """Element-wise quotient; NaN (without a warning) where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(
        np.asarray(numerator, dtype=float), np.asarray(denominator, dtype=float)
    )
    quotient = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator != 0)
    return quotient


def semantic_scores(confusion: np.ndarray, class_names: Sequence[str]) -> dict[str, float]:
    """Percentages under Detectron2's key names.

    Args:
        confusion: (K + 1, K + 1) pixel counts, truth by prediction; the last row holds ignored
            truth and counts nowhere, the last column truth for which nothing was predicted: it
            counts as missed.
        class_names: K names.

    Returns:
        mIoU, fwIoU, mACC, pACC and, per class, IoU, ACC (recall) and Precision. As in Detectron2
        0.6 and cityscapesscripts, a class that is predicted but has no truth enters mIoU as 0,
        while its own ``IoU-<class>`` is NaN; without any labelled pixel every figure is NaN.
    """
    iou, accuracy, precision = class_scores(confusion)
    truth = confusion[:-1].sum(axis=1).astype(float)
    predicted = confusion[:-1, :-1].sum(axis=0).astype(float)
    present = truth > 0
    seen = (truth + predicted) > 0
    hits = confusion.diagonal()[:-1].astype(float)
    weights = divide(truth, truth.sum())
    scores = {
        "mIoU": divide(iou[present].sum(), seen.sum()),
        "fwIoU": np.sum(iou[present] * weights[present]) if present.any() else np.nan,
        **{f"IoU-{name}": value for name, value in zip(class_names, iou, strict=True)},
        "mACC": divide(accuracy[present].sum(), present.sum()),
        "pACC": divide(hits.sum(), truth.sum()),
        **{f"ACC-{name}": value for name, value in zip(class_names, accuracy, strict=True)},
        **{f"Precision-{name}": value for name, value in zip(class_names, precision, strict=True)},
    }
    return {key: 100 * float(value) for key, value in scores.items()}


def class_scores(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per-class IoU, recall and precision in 0..1; NaN where the class has no truth.

    Args:
        confusion: as in :func:`semantic_scores`. Precision is NaN where nothing was predicted.
    """
    hits = confusion.diagonal()[:-1].astype(float)
    truth = confusion[:-1].sum(axis=1).astype(float)
    predicted = confusion[:-1, :-1].sum(axis=0).astype(float)
    iou = divide(hits, np.where(truth > 0, truth + predicted - hits, 0))
    return iou, divide(hits, truth), divide(hits, predicted)


def detection_scores(hit: np.ndarray, miss: np.ndarray, wanted: int) -> dict[str, float]:
    """F1 of one image's detections in percent, as ``score``, and its counts tp, fp and fn.

    Args:
        hit: (D,) whether each detection found a truth.
        miss: (D,) whether each is a mistake; one that is neither does not count.
        wanted: truths that count.

    Returns:
        The score is NaN where there was nothing to find and nothing was found.
    """
    tp = int(np.count_nonzero(hit))
    return f1_scores(tp, int(np.count_nonzero(miss)), wanted - tp)


def f1_scores(tp: int, fp: int, fn: int) -> dict[str, float]:
    """The same from the counts of hits, mistakes and missed truths."""
    score = 100 * float(divide(2 * tp, 2 * tp + fp + fn))
    return {"score": score, "tp": tp, "fp": fp, "fn": fn}


def mean_iou(confusion: np.ndarray) -> float:
    """mIoU in 0..1 as :func:`semantic_scores` defines it."""
    iou, _, _ = class_scores(confusion)
    seen = (confusion[:-1].sum(axis=1) + confusion[:-1, :-1].sum(axis=0)) > 0
    return float(divide(np.nansum(iou), seen.sum()))
