"""Suppression by the pixels that are taken already."""

from __future__ import annotations

from seg_plugins.ops.suppression import occupancy_suppression

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.usefixtures("device")


def runs(*ranges, length=30):
    """Masks of one row: pixels from a to b, exclusive."""
    masks = torch.zeros(len(ranges), 1, length, dtype=torch.bool)
    for mask, (start, end) in zip(masks, ranges, strict=True):
        mask[0, start:end] = True
    return masks


def by_the_paper(masks, scores, min_area, max_taken, points):
    """One mask after the other, in plain Python."""
    taken, kept = np.zeros(masks.shape[1:], bool), np.zeros(len(masks), bool)
    for i in np.argsort(-scores, kind="stable"):
        area = int(masks[i].sum())
        if points is not None and taken.ravel()[points[i]]:
            continue
        if area < min_area or int((masks[i] & taken).sum()) / area >= max_taken:
            continue
        kept[i] = True
        taken |= masks[i]
    return kept


def test_by_hand():
    # B shares 4 of its 10 pixels with A, C only 3: two fifths is too much. D is too small.
    masks = runs((0, 10), (6, 16), (7, 17), (20, 29))
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6])
    assert occupancy_suppression(masks, scores).tolist() == [True, False, True, False]
    # C first: then A has lost 3 of 10, B 9 of 10.
    scores = torch.tensor([0.8, 0.7, 0.9, 0.6])
    found = occupancy_suppression(masks, scores, min_area=9)
    assert found.tolist() == [True, False, True, True]


def test_what_was_dropped_takes_nothing():
    masks = runs((0, 10), (5, 15), (10, 20))
    found = occupancy_suppression(masks, torch.tensor([0.9, 0.8, 0.7]))
    assert found.tolist() == [True, False, True]


def test_a_mask_goes_whose_point_is_taken():
    masks = runs((0, 10), (9, 20))
    scores = torch.tensor([0.9, 0.8])
    found = [
        occupancy_suppression(masks, scores, points=torch.tensor([0, point])).tolist()
        for point in (9, 12)
    ]
    assert found == [[True, False], [True, True]]


def test_of_equal_scores_the_first_is_better():
    masks = runs((0, 10), (0, 10))
    assert occupancy_suppression(masks, torch.ones(2)).tolist() == [True, False]


@pytest.mark.parametrize("count", [0, 1])
def test_few_or_empty_masks(count):
    masks = torch.zeros(count, 4, 5, dtype=torch.bool)
    found = occupancy_suppression(masks, torch.ones(count), points=torch.zeros(count).long())
    assert found.tolist() == [False] * count
    assert found.dtype == torch.bool
    # A mask without a pixel is no mask, however small it may be.
    assert not occupancy_suppression(masks, torch.ones(count), min_area=1).any()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("pointed", [True, False])
def test_equals_a_plain_loop(seed, pointed):
    rng = np.random.default_rng(seed)
    masks = np.zeros((40, 24, 31), bool)
    for mask in masks:
        y, x, h, w = rng.integers(0, (22, 28, 12, 16))
        mask[y : y + h, x : x + w] = True
    scores = rng.integers(0, 12, 40) / 12  # with ties
    points = rng.integers(0, 24 * 31, 40) if pointed else None
    found = occupancy_suppression(
        torch.tensor(masks),
        torch.tensor(scores),
        min_area=7,
        max_taken=0.35,
        points=torch.tensor(points) if pointed else None,
    )
    expected = by_the_paper(masks, scores, 7, 0.35, points)
    assert found.tolist() == expected.tolist()
    assert 3 < expected.sum() < 35


def test_tracing_follows_it():
    masks, scores = runs((0, 10), (6, 16), (7, 17)), torch.tensor([0.9, 0.8, 0.7])
    traced = torch.jit.trace(occupancy_suppression, (masks, scores))
    other = torch.tensor([0.7, 0.9, 0.8])
    assert traced(masks, other).tolist() == occupancy_suppression(masks, other).tolist()
