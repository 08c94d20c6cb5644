"""Legends and names: swatches in their colours, rows, and what does not fit."""

from __future__ import annotations

from seg_plugins.visualization.legend import below, line, write_names

import numpy as np

PICTURE = np.full((100, 120, 3), 7, np.uint8)
RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def swatches(panel, color):
    return int((panel == color).all(axis=2).sum())


def test_the_picture_stays_and_each_entry_gets_a_swatch():
    drawn = below(PICTURE, [(RED, "disc 12.0%"), (BLUE, "größe")])
    assert drawn.dtype == np.uint8
    assert drawn.shape[1] == 120
    assert np.array_equal(drawn[:100], PICTURE)
    panel = drawn[100:]
    assert swatches(panel, RED) == swatches(panel, BLUE) == 11 * 11
    assert swatches(panel, WHITE) > panel.size / 6  # the rest is white, but for text


def test_more_entries_than_fit_a_row_take_another_one():
    heights = [below(PICTURE, [(RED, "a")] * n).shape[0] - 100 for n in (1, 4, 5, 9)]
    # 11 pixels of type, 16 a row and 5 around: four of 28 pixels stand in a row of 120.
    assert heights == [21, 21, 37, 53]


def test_a_panel_is_not_higher_than_the_picture():
    drawn = below(PICTURE, [(RED, f"nucleus {i}") for i in range(500)])
    assert 150 < drawn.shape[0] <= 200
    assert swatches(drawn[100:], RED) // 121 < 10


def test_the_rest_is_counted():
    """Whatever is not shown: the last swatch is white, and the count that of the others."""
    shown = below(PICTURE, [(RED, "i")] * 500)
    rows = (shown.shape[0] - 100 - 5) // 16
    assert rows == 5
    count = swatches(shown[100:], RED) // 121
    same = below(PICTURE, [(RED, "i")] * count + [(WHITE, f"+ {500 - count} more")])
    assert np.array_equal(shown, same)


def test_nothing_to_say_adds_nothing():
    assert below(PICTURE, []) is PICTURE
    narrow = PICTURE[:, :40]
    assert below(narrow, [(RED, "a")]) is narrow


def test_a_line_has_each_text_in_its_share_and_cuts_what_is_longer():
    whole = line(300, ["image", "a title that is much longer than a hundred pixels", "c"], 11)
    assert whole.shape == (16, 300, 3)
    dark = (whole < 128).any(axis=(0, 2))
    for start in (0, 100, 200):
        assert dark[start : start + 12].any()
    assert not dark[195:200].any()  # cut before the next begins


def test_names_stand_on_their_colour_inside_the_picture():
    picture = PICTURE.copy()
    boxes = np.array([[-3.0, 0.0, 40.0, 40.0], [100.0, 90.0, 118.0, 99.0]])
    write_names(picture, boxes, ["cell 0.91", "b"], [RED, BLUE])
    assert swatches(picture[:13, :60], RED) > 300
    assert swatches(picture[80:, 100:], BLUE) > 50
    assert (picture[:13, :60] == WHITE).all(axis=2).any()  # on a dark ground
    assert np.array_equal(picture[30:70], PICTURE[30:70])


def test_a_name_that_would_cover_its_object_is_left_out():
    picture = PICTURE.copy()
    boxes = np.array([[60.0, 60.0, 72.0, 72.0], [20.0, 5.0, 24.0, 95.0], [5.0, 60.0, 45.0, 90.0]])
    write_names(picture, boxes, ["cell 0.91", "t", "cell 0.87"], [RED, BLUE, RED])
    assert swatches(picture[:, 66:], RED) == 0  # 12x12 pixels: less than the name takes
    assert swatches(picture[:13], BLUE) > 0  # thin, but larger than its name
    assert swatches(picture[45:60, :50], RED) > 200
