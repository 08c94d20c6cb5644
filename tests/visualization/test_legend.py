"""Legends: swatches in their colours, columns, and what does not fit."""

from __future__ import annotations

from seg_plugins.visualization.legend import beside

import numpy as np

PICTURE = np.full((100, 120, 3), 7, np.uint8)
RED, BLUE = (255, 0, 0), (0, 0, 255)


def swatches(panel, color):
    return int((panel == color).all(axis=2).sum())


def test_the_picture_stays_and_each_entry_gets_a_swatch():
    drawn = beside(PICTURE, [(RED, "disc 12.0%"), (BLUE, "größe")])
    assert drawn.dtype == np.uint8
    assert np.array_equal(drawn[:, :120], PICTURE)
    panel = drawn[:, 120:]
    assert swatches(panel, RED) == swatches(panel, BLUE) >= 100
    assert swatches(panel, (255, 255, 255)) > panel.size / 6  # the rest is white, but for text


def test_more_entries_than_rows_take_another_column():
    one = beside(PICTURE, [(RED, "a")] * 5)
    two = beside(PICTURE, [(RED, "a")] * 7)
    assert two.shape[1] - 120 == 2 * (one.shape[1] - 120)


def test_a_panel_is_not_wider_than_the_picture():
    drawn = beside(PICTURE, [(RED, f"nucleus {i}") for i in range(500)])
    assert drawn.shape[1] <= 240
    shown = swatches(drawn[:, 120:], RED) // swatches(beside(PICTURE, [(RED, "a")])[:, 120:], RED)
    assert shown < 500


def test_the_count_of_the_rest_is_not_cut():
    """Its row is the widest of its column: the last pixels at the right are white."""
    drawn = beside(PICTURE, [(RED, "i")] * 500)
    assert (drawn[:, -3:] == 255).all()


def test_nothing_to_say_adds_nothing():
    assert beside(PICTURE, []).shape == PICTURE.shape
    assert beside(PICTURE[:5], [(RED, "a")]).shape == (5, 120, 3)
