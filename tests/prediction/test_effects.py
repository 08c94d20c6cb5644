"""Cut-out and portrait blur."""

from __future__ import annotations

from seg_plugins.prediction import effects

import numpy as np
import pytest

MASK = np.zeros((60, 80), bool)
MASK[20:40, 30:50] = True


def test_alpha_is_hard_away_from_the_edge_and_soft_on_it():
    image = np.full((60, 80, 3), 128, np.uint8)
    alpha = effects.soft_alpha(MASK, image, edge=2)
    assert alpha.dtype == np.float32
    assert alpha[30, 40] == 1
    assert alpha[5, 5] == 0
    column = alpha[30, 25:36]
    assert (np.diff(column) >= 0).all()
    assert ((column > 0.05) & (column < 0.95)).any()
    assert column[4] < 0.5 < column[5]  # the outline stays in its place


def test_without_an_edge_alpha_is_the_mask():
    alpha = effects.soft_alpha(MASK, np.zeros((60, 80, 3), np.uint8), edge=0)
    assert np.array_equal(alpha, MASK)


def test_the_edge_clings_to_the_picture():
    """A mask that is one pixel too wide ends where the picture's brightness does."""
    image = np.full((60, 80, 3), 20, np.uint8)
    image[20:40, 31:50] = 230
    guided = effects.soft_alpha(MASK, image, edge=3)[30]
    blind = effects.soft_alpha(MASK, np.full_like(image, 20), edge=3)[30]
    assert guided[31] - guided[30] > 2 * (blind[31] - blind[30])


@pytest.mark.parametrize("value", [False, True])
def test_an_empty_and_a_full_mask_stay_so(value):
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    assert (effects.soft_alpha(np.full((60, 80), value), image) == value).all()


def test_the_cut_out_keeps_colors_and_writes_alpha():
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    cut = effects.cut_out(image, MASK.astype(np.float32))
    assert np.array_equal(cut[:, :, :3], image)
    assert np.array_equal(cut[:, :, 3], MASK * np.uint8(255))


def test_blur_leaves_the_subject_and_smooths_the_rest():
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    blurred = effects.blur_background(image, MASK.astype(np.float32), 0.1)
    assert np.array_equal(blurred[MASK], image[MASK])
    assert blurred[~MASK].std() < image[~MASK].std() / 4


def test_the_subject_does_not_bleed_into_the_background():
    image = np.zeros((60, 80, 3), np.uint8)
    image[MASK] = 255
    image[~MASK] = (10, 20, 30)
    blurred = effects.blur_background(image, MASK.astype(np.float32), 0.1)
    assert np.array_equal(blurred, image)
