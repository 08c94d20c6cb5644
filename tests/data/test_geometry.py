"""Geometry on ramps, where bilinear sampling is exact, and against literal step-by-step NumPy."""

from __future__ import annotations

from seg_plugins.data.geometry import Geometry

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

HEIGHT, WIDTH = 24, 36


def ramp() -> np.ndarray:
    """(H, W, 2) float32: the x and y of each pixel's centre."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32) + 0.5
    return np.stack([x, y], axis=2)


IDS = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH)

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("crop"), st.floats(0, 1), st.floats(0, 1), st.floats(0.3, 1)),
        st.tuples(st.just("flip"), st.booleans()),
        st.tuples(st.just("turn"), st.integers(0, 5)),
    ),
    max_size=6,
)


@settings(max_examples=80, deadline=None)
@given(STEPS)
def test_crops_flips_and_turns_equal_numpy_step_by_step(steps):
    geometry, expected = Geometry.identity((HEIGHT, WIDTH)), IDS
    for step in steps:
        if step[0] == "crop":
            full_h, full_w = expected.shape
            h, w = max(int(full_h * step[3]), 1), max(int(full_w * step[3]), 1)
            y, x = int((full_h - h) * step[1]), int((full_w - w) * step[2])
            geometry, expected = geometry.crop(y, x, h, w), expected[y : y + h, x : x + w]
        elif step[0] == "flip":
            geometry = geometry.flip(horizontal=step[1])
            expected = np.fliplr(expected) if step[1] else np.flipud(expected)
        else:
            geometry, expected = geometry.turn(step[1]), np.rot90(expected, step[1])
    assert geometry.output_size == expected.shape
    assert np.array_equal(geometry.apply_label(IDS), expected)
    image = np.repeat(IDS[:, :, None], 3, axis=2)
    assert np.array_equal(geometry.apply_image(image)[:, :, 1], expected)


@pytest.mark.parametrize("scale", [1.5, 2, 3])
def test_a_ramp_stays_a_ramp_when_enlarged(scale):
    height, width = int(HEIGHT * scale), int(WIDTH * scale)
    geometry = Geometry.identity((HEIGHT, WIDTH)).resize(height, width)
    result = geometry.apply_image(ramp())
    y, x = (np.mgrid[0:height, 0:width] + 0.5) / scale
    margin = int(np.ceil(scale))  # beyond the outermost centres the edge value is held
    inner = np.s_[margin:-margin, margin:-margin]
    assert np.allclose(result[inner][..., 0], x[inner], atol=1e-4)
    assert np.allclose(result[inner][..., 1], y[inner], atol=1e-4)


def test_points_land_where_the_ramp_says():
    """A crop of an enlarged, mirrored, turned image: image, points and label agree."""
    geometry = Geometry.identity((HEIGHT, WIDTH)).resize(48, 72).crop(6, 8, 30, 50)
    geometry = geometry.flip(horizontal=True).turn(1).crop(4, 3, 40, 20)
    result = geometry.apply_image(ramp())
    assert result.shape[:2] == geometry.output_size == (40, 20)
    rows, columns = np.mgrid[0:40, 0:20]
    source = result[rows, columns].reshape(-1, 2).astype(np.float64)  # where each came from
    back = geometry.apply_points(source)
    assert np.allclose(back, np.stack([columns, rows], 2).reshape(-1, 2) + 0.5, atol=1e-3)
    nearest = geometry.apply_label(IDS)
    by_hand = IDS[(source[:, 1]).astype(int), (source[:, 0]).astype(int)].reshape(40, 20)
    assert (nearest == by_hand).mean() > 0.99  # the rest sits on pixel edges


@pytest.mark.parametrize(("height", "width"), [(12, 18), (17, 23), (48, 72), (5, 80)])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_the_fused_crop_equals_resizing_first(height, width, channels):
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, channels)).astype(np.uint8)
    whole = Geometry.identity((HEIGHT, WIDTH)).resize(height, width)
    resized, label = whole.apply_image(image), whole.apply_label(IDS)
    for y, x in ((0, 0), (1, 3), (height - 4, width - 9)):
        part = whole.crop(y, x, 4, 9)
        difference = part.apply_image(image).astype(int) - resized[y : y + 4, x : x + 9]
        assert abs(difference).max() <= 1  # one rounding step of Pillow's fixed point
        assert np.array_equal(part.apply_label(IDS), label[y : y + 4, x : x + 9])


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.int16])
def test_any_depth_comes_through_unscaled(dtype):
    image = np.full((8, 8, 2), 1000, dtype)
    assert (Geometry.identity((8, 8)).resize(16, 12).apply_image(image) == 1000).all()
    assert Geometry.identity((8, 8)).flip(horizontal=True).apply_image(image).dtype == dtype


def test_unturned_view_is_the_inverse_of_turning():
    for quarters in range(4):
        for mirrored in (False, True):
            geometry = Geometry.identity((HEIGHT, WIDTH)).turn(quarters)
            if mirrored:
                geometry = geometry.flip(horizontal=True)
            assert np.array_equal(geometry.unturned_view(geometry.apply_label(IDS)), IDS)


def test_a_crop_outside_is_refused():
    with pytest.raises(ValueError, match=r"crop of 10x10 at \(20, 0\) leaves 24x36"):
        Geometry.identity((HEIGHT, WIDTH)).crop(20, 0, 10, 10)
