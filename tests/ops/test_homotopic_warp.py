"""Homotopic warping, compiled and fallback: the topology stays."""

from __future__ import annotations

from seg_plugins.ops import segmentation_metrics
from seg_plugins.ops.homotopic_warp import homotopic_warp, simple_points

import cv2
import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("form")


def test_simple_points_of_known_neighbourhoods():
    simple = simple_points()
    north, west, east, south = 1 << 1, 1 << 3, 1 << 4, 1 << 6
    assert not simple[0]  # an isolated pixel
    assert not simple[255]  # a pixel inside
    assert simple[north]  # the end of a line
    assert not simple[north | south]  # the middle of a line
    assert not simple[north | east]  # two 4-components meet in the centre
    assert simple[north | east | 1 << 2]  # joined around the corner
    assert simple[255 - (1 << 0)]  # background reaches the centre by a corner
    assert simple[255 - west]


def components(image):
    """Counts of 4-connected foreground and 8-connected background, the outside included."""
    background = np.pad(1 - image, 1, constant_values=1).astype(np.uint8)
    return (
        cv2.connectedComponents(image.astype(np.uint8), connectivity=4)[0],
        cv2.connectedComponents(background, connectivity=8)[0],
    )


@pytest.mark.parametrize("seed", range(4))
def test_warping_keeps_the_topology_and_ends_when_nothing_is_simple(seed):
    rng = np.random.default_rng(seed)
    source, target = ((rng.random((24, 30)) < 0.5).astype(np.uint8) for _ in range(2))
    warped = homotopic_warp(source, target)
    assert components(warped) == components(source)
    assert np.count_nonzero(warped != target) < np.count_nonzero(source != target)
    np.testing.assert_array_equal(homotopic_warp(warped, target), warped)


def test_warping_respects_the_mask_and_reaches_an_equal_topology():
    source, target = np.zeros((9, 9), np.uint8), np.zeros((9, 9), np.uint8)
    source[4, 4] = 1
    target[2:7, 3:8] = 1
    np.testing.assert_array_equal(homotopic_warp(source, target), target)
    mask = np.zeros((9, 9), np.uint8)
    mask[:, :5] = 1
    expected = source.copy()
    expected[2:7, 3:5] = 1
    np.testing.assert_array_equal(homotopic_warp(source, target, mask), expected)


def test_both_forms_warp_alike(form, monkeypatch):
    if form == "fallback" or not segmentation_metrics.compiled():
        pytest.skip("compares the two forms once")
    rng = np.random.default_rng(9)
    source, target = ((rng.random((40, 31)) < 0.6).astype(np.uint8) for _ in range(2))
    compiled = homotopic_warp(source, target)
    monkeypatch.setattr("seg_plugins.ops.homotopic_warp.compiled", lambda: False)
    np.testing.assert_array_equal(homotopic_warp(source, target), compiled)


@pytest.mark.parametrize("size", [(0, 0), (0, 3), (3, 0), (1, 1), (1, 5)])
def test_images_of_few_pixels_without_a_simple_point_stay(size):
    source = np.zeros(size, np.uint8)
    np.testing.assert_array_equal(homotopic_warp(source, 1 - source), source)


def test_other_types_and_layouts_warp_alike():
    rng = np.random.default_rng(3)
    source, target = ((rng.random((12, 14)) < 0.5) for _ in range(2))
    expected = homotopic_warp(source, target)
    wide = 1000 * source.astype(np.int64).T.copy().T
    np.testing.assert_array_equal(homotopic_warp(wide, np.asfortranarray(target * 0.5)), expected)


def test_wrong_shapes_are_named():
    flat = np.zeros((4, 4), np.uint8)
    with pytest.raises(ValueError, match=r"\(4, 4\), \(4, 3\) and \(4, 4\)"):
        homotopic_warp(flat, flat[:, 1:])
    with pytest.raises(ValueError, match=r"\(H, W\)"):
        homotopic_warp(flat[None], flat[None])
