"""COCO's greedy matching for overlaps of any kind: compiled, or the same in Python."""

from __future__ import annotations

import numpy as np
import torch

from .segmentation_metrics import as_tensor, compiled


def match_instances(
    iou: np.ndarray,
    *,
    detection_groups: np.ndarray,
    truth_groups: np.ndarray,
    crowd: np.ndarray,
    truth_ignored: np.ndarray,
    thresholds: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Match the detections of one image, best score first, each to the best free truth.

    Truth that an area range ignores is taken only where no other fits; a crowd may be taken by
    any number of detections.

    Args:
        iou: (D, G) float64; detections sorted by group, by falling score within a group.
        detection_groups: (D,) int64, ascending: the category.
        truth_groups: (G,) int64, ascending.
        crowd: (G,) bool.
        truth_ignored: (A, G) bool, for each of A area ranges.
        thresholds: (T,) float64 overlaps that count as a match.

    Returns:
        matched: (A, T, D) bool: the detection found a truth.
        ignored: (A, T, D) bool: it found one that is ignored.
    """
    if compiled():
        matched, ignored = torch.ops.seg_plugins.match_instances(
            as_tensor(iou),
            as_tensor(detection_groups),
            as_tensor(truth_groups),
            as_tensor(crowd),
            as_tensor(truth_ignored),
            as_tensor(thresholds),
        )
        return matched.numpy(), ignored.numpy()
    areas, steps, count = len(truth_ignored), len(thresholds), len(detection_groups)
    matched = np.zeros((areas, steps, count), bool)
    ignored = np.zeros((areas, steps, count), bool)
    for group in np.intersect1d(detection_groups, truth_groups):
        found = np.flatnonzero(detection_groups == group)
        truths = np.flatnonzero(truth_groups == group)
        for area in range(areas):
            order = truths[np.argsort(truth_ignored[area, truths], kind="stable")]
            for step, threshold in enumerate(thresholds):
                _match_one(
                    iou,
                    found,
                    order,
                    crowd,
                    truth_ignored[area],
                    threshold,
                    matched[area, step],
                    ignored[area, step],
                )
    return matched, ignored


def _match_one(
    iou: np.ndarray,
    found: np.ndarray,
    order: np.ndarray,
    crowd: np.ndarray,
    skip: np.ndarray,
    threshold: float,
    matched: np.ndarray,
    ignored: np.ndarray,
) -> None:
    """One group at one threshold and area range; marks `matched` and `ignored`."""
    taken: set[int] = set()
    for detection in found:
        best, match = min(threshold, 1 - 1e-10), -1
        for truth in order:
            if truth in taken and not crowd[truth]:
                continue
            if match >= 0 and not skip[match] and skip[truth]:
                break
            if iou[detection, truth] >= best:
                best, match = iou[detection, truth], truth
        if match >= 0:
            taken.add(match)
            matched[detection] = True
            ignored[detection] = skip[match]
