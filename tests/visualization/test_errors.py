from __future__ import annotations

from seg_plugins.visualization import errors

import numpy as np

GREY = np.full((2, 3, 3), 100, np.uint8)


def reddish(picture):
    return (picture[..., 0].astype(int) - picture[..., 1]) > 80


def test_wrong_pixels_are_red_and_ignored_ones_black():
    truth = np.array([[0, 1, 255], [1, 1, 0]])
    labels = np.array([[0, 0, 1], [1, 0, 0]])
    picture = errors.wrong_labels(GREY, truth, labels)
    assert reddish(picture).tolist() == [[False, True, False], [False, True, False]]
    assert (picture[0, 2] == 0).all()
    assert picture[1, 2].min() > 0


def test_found_missed_and_invented_have_their_colors():
    truth = np.array([[1, 1, 0], [0, 0, 0]], bool)
    found = np.array([[1, 0, 1], [0, 0, 0]], bool)
    picture = errors.wrong_regions(GREY, truth[None], found[None]).astype(int)
    assert picture[0, :3].argmax(axis=-1).tolist() == [1, 0, 2]
    assert np.ptp(picture[1, 0]) == 0
