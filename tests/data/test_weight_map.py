"""U-Net's border weights against the formula evaluated cell by cell over the whole image."""

from __future__ import annotations

from seg_plugins.data import border_weights

import numpy as np
import pytest


def slow_border_weights(label: np.ndarray, w0: float, sigma: float) -> np.ndarray:
    """Distances to every pixel of every cell, sorted; nothing clever."""
    import cv2

    count, cells = cv2.connectedComponents((label == 1).astype(np.uint8), connectivity=4)
    weights = np.ones(label.shape)
    for y, x in zip(*np.nonzero(label != 1), strict=True):
        distances = sorted(
            min(np.hypot(y - a, x - b) for a, b in zip(*np.nonzero(cells == c), strict=True))
            for c in range(1, count)
        )
        if len(distances) > 1:
            weights[y, x] += w0 * np.exp(-((distances[0] + distances[1]) ** 2) / (2 * sigma**2))
    return weights


@pytest.mark.parametrize("seed", range(3))
def test_equals_the_formula(seed):
    rng = np.random.default_rng(seed)
    label = np.zeros((24, 30), np.uint8)
    for _ in range(4):
        y, x = rng.integers(0, 18), rng.integers(0, 24)
        label[y : y + rng.integers(2, 6), x : x + rng.integers(2, 6)] = 1
    fast = border_weights(label, w0=10, sigma=3)
    assert fast.dtype == np.float32
    assert np.allclose(fast, slow_border_weights(label, 10, 3), atol=1e-4)


def test_a_gap_of_one_pixel_by_hand():
    """Both cells are one pixel away: 1 + 10 exp(-4 / 50)."""
    label = np.ones((9, 9), np.uint8)
    label[:, 4] = 0
    weights = border_weights(label)
    assert weights[4, 4] == pytest.approx(1 + 10 * np.exp(-4 / 50))
    assert (weights[:, :4] == 1).all()


def test_class_weights_are_the_first_term():
    label = np.array([[0, 1, 255]], np.uint8)
    assert border_weights(label, class_weights=(3.0, 0.5)).tolist() == [[3.0, 0.5, 1.0]]


@pytest.mark.parametrize("label", [np.zeros((5, 5)), np.ones((5, 5))])
def test_fewer_than_two_cells_have_no_border(label):
    assert (border_weights(label.astype(np.uint8)) == 1).all()
