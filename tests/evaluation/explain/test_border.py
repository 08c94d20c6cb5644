"""Distances to the border and the errors in their bands, by hand."""

from __future__ import annotations

from seg_plugins.evaluation.explain.border import WIDTHS, BorderErrors, border_distance

import numpy as np
import pytest

VOID = 3


def test_distance_is_that_to_the_nearest_pixel_of_another_class():
    """Against every pair of pixels; void is no class and no border."""
    rng = np.random.default_rng(0)
    truth = np.kron(rng.integers(0, VOID + 1, (5, 6)), np.ones((4, 3), int)).astype(np.int32)
    rows, columns = np.indices(truth.shape)
    found = border_distance(truth, VOID)
    for place in np.argwhere(truth != VOID):
        others = (truth != VOID) & (truth != truth[tuple(place)])
        away = np.hypot(rows[others] - place[0], columns[others] - place[1]).min()
        assert found[tuple(place)] == pytest.approx(away, rel=1e-5)


def test_one_class_has_no_border():
    assert np.isinf(border_distance(np.array([[1, 1, VOID]], np.int32), VOID)).all()


def test_errors_by_hand():
    """A row of 30 pixels of class 0 and 3 of class 1, an ignored one, and wrong ones."""
    truth = np.array([[0] * 30 + [1] * 3 + [VOID]], np.int32)
    labels = np.array([[0] * 29 + [1] * 5], np.uint16)  # the last of class 0 is wrong
    labels[0, 4] = 2  # 26 pixels from class 1
    labels[0, 20] = VOID  # nothing predicted, 10 away
    errors = BorderErrors()
    errors.add(labels, truth, VOID)
    rows = errors.table()
    assert [row["up_to"] for row in rows] == [*WIDTHS, None]
    assert [row["pixels"] for row in rows] == [2, 2, 4, 5, 10, 10]
    assert [row["wrong"] for row in rows] == [1, 0, 0, 1, 0, 1]
    assert [row["error"] for row in rows] == pytest.approx([50, 0, 0, 20, 0, 10])
    assert rows[0]["share"] == pytest.approx(100 / 3)
