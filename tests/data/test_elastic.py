"""Elastic deformation: image, ids and masks of every type move alike."""

from __future__ import annotations

from seg_plugins.data.elastic import ElasticDeformation, Warp
from seg_plugins.data.geometry import Geometry

import numpy as np
import pytest

IMAGE = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)


def test_elastic_moves_image_and_label_alike():
    """A ramp shows where each pixel came from; its label must come from the same place."""
    height, width = 60, 80
    elastic = ElasticDeformation(6.0)
    moves = elastic.draw(np.random.default_rng(0), height, width)
    warp = Warp(Geometry.identity((height, width)), moves)
    y, x = np.mgrid[0:height, 0:width]
    ramp = np.stack([x, y], axis=2).astype(np.float32)
    label = (y * width + x).astype(np.uint16)
    warped, warped_label = warp.apply_image(ramp), warp.apply_label(label)
    inside = (
        (moves[..., 0] > 1) & (moves[..., 0] < width - 2)
        & (moves[..., 1] > 1) & (moves[..., 1] < height - 2)
    )  # fmt: skip
    assert inside.mean() > 0.6
    assert np.abs(warped - moves)[inside].max() < 1 / 16  # OpenCV's grid of 1/32 pixels
    nearest = np.stack([warped_label % width, warped_label // width], axis=2)
    assert np.abs(nearest - moves)[inside].max() <= 0.5 + 1 / 16


def test_elastic_without_strength_is_the_identity():
    elastic = ElasticDeformation(0.0)
    moves = elastic.draw(np.random.default_rng(0), *IMAGE.shape[:2])
    assert np.array_equal(Warp(Geometry.identity(IMAGE.shape[:2]), moves).apply_image(IMAGE), IMAGE)


def test_elastic_displacements_have_the_sigma_and_are_smooth():
    corners = []
    for rng in (np.random.default_rng(seed) for seed in range(200)):
        moves = ElasticDeformation(10.0).draw(rng, 50, 50)
        corners.append(moves[0, 0])
        assert np.abs(np.diff(moves[..., 0], axis=1) - 1).max() < 6
    assert np.std(corners) == pytest.approx(10, abs=1.5)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16, np.int16, np.uint32, np.int64])
def test_labels_of_every_type_keep_their_values(dtype):
    high = min(int(np.iinfo(dtype).max), (1 << 24) - 1) if dtype is not bool else 1
    label = np.array([[0, high], [high, 0]]).astype(dtype)
    y, x = np.mgrid[0:2, 0:2].astype(np.float32)
    mirrored = Warp(Geometry.identity((2, 2)), np.stack([1 - x, y], axis=2))
    result = mirrored.apply_label(label)
    assert result.dtype == label.dtype
    assert np.array_equal(result, label[:, ::-1])
