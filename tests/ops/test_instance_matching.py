"""Matching of detections and truth, compiled and fallback."""

from __future__ import annotations

from seg_plugins.ops.instance_matching import match_instances

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("form")


def test_matching_prefers_truth_that_counts_and_shares_crowds():
    zeros = np.zeros
    # Two detections, three truths: one ignored by area, one crowd.
    iou = np.array([[0.6, 0.9, 0.0], [0.0, 0.0, 0.8]])
    matched, ignored = match_instances(
        np.vstack([iou, [[0.0, 0.0, 0.7]]]),
        detection_groups=zeros(3, np.int64),
        truth_groups=zeros(3, np.int64),
        crowd=np.array([False, False, True]),
        truth_ignored=np.array([[False, True, True]]),
        thresholds=np.array([0.5, 0.65]),
    )
    # At 0.5 the first takes the truth that counts though the ignored one overlaps more; at 0.65
    # only the ignored one is left. Both others may take the crowd.
    assert matched.tolist() == [[[True, True, True], [True, True, True]]]
    assert ignored.tolist() == [[[False, True, True], [True, True, True]]]


def test_matching_takes_each_truth_once_and_never_across_groups():
    matched, _ = match_instances(
        np.array([[0.9, 0.8], [0.9, 0.0], [0.0, 0.9]]),
        detection_groups=np.array([1, 1, 2]),
        truth_groups=np.array([1, 3]),
        crowd=np.zeros(2, bool),
        truth_ignored=np.zeros((1, 2), bool),
        thresholds=np.array([0.5]),
    )
    assert matched.tolist() == [[[True, False, False]]]
