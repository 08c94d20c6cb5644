"""Boundary measures against hand-made numbers and slow, per-class definitions."""

from __future__ import annotations

from seg_plugins.evaluation.boundary import BoundaryMeasures, near_another_class
from seg_plugins.evaluation.confusion import semantic_scores

import numpy as np
import pytest

IGNORE = 255
NAMES = ["a", "b", "c"]


def random_maps(seed, shape=(26, 31)):
    rng = np.random.default_rng(seed)
    maps = []
    for _ in range(2):
        coarse = rng.integers(0, 3, (shape[0] // 5 + 1, shape[1] // 5 + 1))
        maps.append(np.kron(coarse, np.ones((5, 5)))[: shape[0], : shape[1]].astype(np.uint8))
    maps[1][rng.random(shape) < 0.05] = IGNORE
    return maps


def slow_band(labels, valid, k, width):
    """Pixels of class k with, in reach, a valid pixel of another class or the image's outside."""
    height, columns = labels.shape
    band = np.zeros(labels.shape, bool)
    for y, x in np.argwhere((labels == k) & valid):
        for v in range(y - width, y + width + 1):
            for u in range(x - width, x + width + 1):
                if not (0 <= v < height and 0 <= u < columns) or (
                    valid[v, u] and labels[v, u] != k
                ):
                    band[y, x] = True
    return band


@pytest.mark.parametrize("seed", range(3))
def test_boundary_iou_equals_its_definition(seed):
    labels, target = random_maps(seed)
    measures = BoundaryMeasures(3, dilation_ratio=0.05, trimap_widths=())
    measures.add(labels, target, IGNORE)
    scores = measures.scores(NAMES)
    valid, width = target != IGNORE, round(0.05 * np.hypot(*target.shape))
    for k, name in enumerate(NAMES):
        found, wanted = (slow_band(m, valid, k, width) for m in (labels, target))
        expected = 100 * (found & wanted).sum() / (found | wanted).sum()
        assert scores[f"BoundaryIoU-{name}"] == pytest.approx(expected, abs=1e-12)


def slow_contour(labels, valid, k):
    points = []
    for y, x in np.argwhere((labels == k) & valid):
        for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            inside = 0 <= v < labels.shape[0] and 0 <= u < labels.shape[1]
            if inside and valid[v, u] and labels[v, u] != k:
                points.append((y, x))
                break
    return points


@pytest.mark.parametrize("seed", range(3))
def test_boundary_f1_equals_its_definition(seed):
    labels, target = random_maps(seed)
    measures = BoundaryMeasures(3, tolerance_ratio=0.04, trimap_widths=())
    measures.add(labels, target, IGNORE)
    scores = measures.scores(NAMES)
    valid, reach = target != IGNORE, 0.04 * np.hypot(*target.shape)
    for k, name in enumerate(NAMES):
        found, wanted = (slow_contour(m, valid, k) for m in (labels, target))

        def share(points, others):
            near = [min(np.hypot(y - v, x - u) for v, u in others) <= reach for y, x in points]
            return np.mean(near)

        precision, recall = share(found, wanted), share(wanted, found)
        expected = 100 * 2 * precision * recall / (precision + recall)
        assert scores[f"BoundaryF1-{name}"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("width", [1, 3])
def test_trimap_counts_only_pixels_near_a_true_boundary(width):
    labels, target = random_maps(5)
    valid = target != IGNORE
    near = np.zeros(target.shape, bool)
    for k in range(3):
        for y, x in np.argwhere((target == k) & valid):
            window = np.s_[max(0, y - width) : y + width + 1, max(0, x - width) : x + width + 1]
            near[y, x] = np.any(valid[window] & (target[window] != k))
    confusion = np.zeros((4, 4), np.int64)
    np.add.at(confusion, (target[near], labels[near]), 1)
    measures = BoundaryMeasures(3, trimap_widths=(width,))
    measures.add(labels, target, IGNORE)
    expected = semantic_scores(confusion, NAMES)["mIoU"]
    assert measures.scores(NAMES)[f"TrimapIoU@{width}px"] == pytest.approx(expected)


def test_both_sides_of_an_edge_are_near_it():
    labels = np.array([[0, 0, 0, 2, 2, 2]], np.int32)
    assert near_another_class(labels, 3, 1).tolist() == [[False, False, True, True, False, False]]
    labels[0, 2:4] = 3  # nothing known in between
    assert not near_another_class(labels, 3, 1).any()
    assert near_another_class(labels, 3, 3).any()


def test_a_perfect_prediction_scores_100_whatever_is_predicted_where_truth_is_ignored():
    labels, _ = random_maps(7)
    target = labels.copy()
    target[4:12, 6:20] = IGNORE
    noisy = labels.copy()
    noisy[4:12, 6:20] = np.random.default_rng(0).integers(0, 3, (8, 14))
    measures = BoundaryMeasures(3)
    measures.add(noisy, target, IGNORE)
    assert {round(value, 9) for value in measures.scores(NAMES).values()} == {100.0}


def test_missed_and_made_up_contours_score_zero_and_absent_ones_nothing():
    target = np.zeros((20, 20), np.uint8)
    target[5:10, 5:10] = 1
    measures = BoundaryMeasures(3)
    measures.add(np.zeros_like(target), target, IGNORE)
    scores = measures.scores(NAMES)
    assert scores["BoundaryF1-b"] == scores["BoundaryIoU-b"] == 0
    assert np.isnan(scores["BoundaryF1-c"])


def test_all_ignored_and_one_pixel_images():
    for shape in ((1, 1), (6, 5)):
        measures = BoundaryMeasures(3)
        measures.add(np.zeros(shape, np.uint8), np.full(shape, IGNORE, np.uint8), IGNORE)
        assert np.isnan(list(measures.scores(NAMES).values())).all()
