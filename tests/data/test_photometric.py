"""Colours, blur and noise on inputs with known answers."""

from __future__ import annotations

from seg_plugins.data.photometric import Blur, ColorJitter, Noise, ValueRange

import numpy as np
import pytest

IMAGE = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)


def rngs(count: int = 60):
    return (np.random.default_rng(seed) for seed in range(count))


def test_jitter_stays_within_its_ranges_and_changes_something():
    grey = np.full((4, 4, 3), 100, np.uint8)
    values = {int(v) for rng in rngs() for v in np.unique(ColorJitter()(rng, grey))}
    assert min(values) >= (100 - 32) * 0.5 - 1
    assert max(values) <= (100 + 32) * 1.5 + 1
    assert len(values) > 20


def test_jitter_leaves_grey_grey_and_the_input_alone():
    """Hue and saturation do nothing to grey; brightness and contrast treat channels alike."""
    grey = np.repeat(IMAGE[:, :, :1], 3, axis=2)
    before = grey.copy()
    for rng in rngs(20):
        result = ColorJitter()(rng, grey)
        assert (result == result[:, :, :1]).all()
    assert np.array_equal(grey, before)


def test_jitter_of_bgr_is_that_of_rgb_mirrored():
    for seed in range(20):
        bgr = ColorJitter(image_format="BGR")(np.random.default_rng(seed), IMAGE)
        rgb = ColorJitter(image_format="RGB")(np.random.default_rng(seed), IMAGE[:, :, ::-1])
        assert np.array_equal(bgr[:, :, ::-1], rgb)


@pytest.mark.parametrize("channels", [1, 4])
def test_any_number_of_channels(channels):
    image = np.full((6, 7, channels), 90, np.uint8)
    for change in (ColorJitter(), Blur(2.0), Noise(5.0)):
        for rng in rngs(6):
            assert change(rng, image).shape == image.shape
            assert change(rng, image).dtype == np.uint8


def test_noise_has_the_strength_it_says():
    image = np.zeros((200, 200, 1), np.float32)
    spreads = [Noise(10.0)(rng, image).std() for rng in rngs()]
    assert max(spreads) < 10.1
    assert 0.3 < np.mean([s > 0 for s in spreads]) < 0.7
    assert np.mean([s for s in spreads if s > 0]) == pytest.approx(5, abs=1.5)


def test_blur_keeps_the_mean():
    image = np.random.default_rng(0).random((40, 40, 3)).astype(np.float32)
    for rng in rngs(10):
        assert Blur(3.0)(rng, image).mean() == pytest.approx(image.mean(), abs=0.02)


def test_value_range_is_linear_and_clips():
    image = np.array([[[-300], [-200], [25], [250], [900]]], np.int16)
    scaled = ValueRange(-200, 250)(np.random.default_rng(0), image)
    assert scaled.ravel() == pytest.approx([0, 0, 127.5, 255, 255])
