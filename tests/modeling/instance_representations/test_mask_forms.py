"""Masks painted one at a time: the pixels of the plain way, at any size, in either format."""

from __future__ import annotations

from seg_plugins.modeling.instance_representations import finishing
from seg_plugins.modeling.instance_representations.finishing import finish
from seg_plugins.modeling.instance_representations.mask_forms import (
    DenseMasks,
    OutlineMasks,
)

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from detectron2.structures import Instances


def instances_with(form, size):
    found = Instances(size)
    found.scores = torch.linspace(0.9, 0.1, len(form))
    found.pred_classes = torch.arange(len(form))
    found.pred_masks = form
    return found


def blobs(count, height, width, seed=0):
    noise = torch.randn(count, 1, 6, 6, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(noise, (height, width), mode="bicubic")[:, 0].sigmoid()


@pytest.mark.parametrize("stride", [1, 2, 4, 8])
def test_dense_masks_are_those_of_interpolating_all(stride):
    """At the network's size: bilinear by the exact stride, then cut; not stretched over padding."""
    maps = blobs(12, 96 // stride, 128 // stride)
    found = finish(instances_with(DenseMasks(maps, stride), (83, 101)), 83, 101, "bitmask")
    plain = F.interpolate(maps[:, None], scale_factor=float(stride), mode="bilinear")[:, 0]
    plain = plain[:, :83, :101]
    sure = (plain - 0.5).abs() > 1e-6
    assert len(found) == 12
    assert found.pred_masks[sure].equal((plain > 0.5)[sure])


def test_one_interpolation_from_the_grid_to_the_output():
    """Pixel (i, j) of the output looks at its own place in the grid."""
    maps = blobs(3, 12, 10, seed=1)
    height, width, size, stride = 57, 31, (45, 38), 4
    found = finish(instances_with(DenseMasks(maps, stride), size), height, width, "bitmask")

    def at(grid, row, column):
        low = [min(max(v, 0), n - 1) for v, n in zip((row, column), grid.shape, strict=True)]
        r, c = int(low[0]), int(low[1])
        r1, c1 = min(r + 1, grid.shape[0] - 1), min(c + 1, grid.shape[1] - 1)
        y, x = low[0] - r, low[1] - c
        upper = grid[r, c] * (1 - x) + grid[r, c1] * x
        return (upper * (1 - y) + (grid[r1, c] * (1 - x) + grid[r1, c1] * x) * y).item()

    for mask, grid in zip(found.pred_masks, maps, strict=True):
        for i in range(height):
            for j in range(width):
                value = at(
                    grid,
                    (i + 0.5) * size[0] / height / stride - 0.5,
                    (j + 0.5) * size[1] / width / stride - 0.5,
                )
                if abs(value - 0.5) > 1e-5:
                    assert mask[i, j] == (value > 0.5)


@pytest.mark.parametrize("mask_format", ["bitmask", "rle"])
def test_boxes_are_those_of_the_masks(mask_format):
    maps = torch.zeros(3, 8, 8)
    maps[0, 2:4, 1:6] = 1
    maps[1, 0, 0] = 1  # touches the image's corner
    found = finish(instances_with(DenseMasks(maps, 1), (8, 8)), 8, 8, mask_format)
    # The third has no pixel: it is no instance of this image.
    assert found.pred_boxes.tensor.tolist() == [[1, 2, 6, 4], [0, 0, 1, 1]]
    assert found.pred_classes.tolist() == [0, 1]
    masks = np.asarray(found.pred_masks).astype(bool)
    assert np.array_equal(masks, (maps[:2] > 0.5).numpy())


def test_what_lies_in_the_padding_is_cut():
    maps = torch.zeros(2, 4, 4)
    maps[0, :, 3] = 1  # columns 12 to 15
    maps[1, 2, 1] = 1
    found = finish(instances_with(DenseMasks(maps, 4), (16, 9)), 16, 9, "rle")
    assert found.pred_classes.tolist() == [1]


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_run_lengths_are_those_of_the_bitmasks(at_once, monkeypatch):
    monkeypatch.setattr(finishing, "_PIXELS_AT_ONCE", at_once * 61 * 47)
    maps = blobs(7, 16, 12)
    wanted = finish(instances_with(DenseMasks(maps, 4), (61, 47)), 61, 47, "bitmask").pred_masks
    found = finish(instances_with(DenseMasks(maps, 4), (61, 47)), 61, 47, "rle").pred_masks
    assert len(found) == 7
    assert np.array_equal(found.to_bitmasks().astype(bool), wanted.numpy())


@pytest.mark.parametrize("mask_format", ["bitmask", "rle"])
def test_without_an_instance(mask_format):
    found = finish(
        instances_with(DenseMasks(torch.zeros(0, 4, 4), 4), (16, 16)), 20, 30, mask_format
    )
    assert len(found) == 0
    assert found.pred_boxes.tensor.shape == (0, 4)
    assert np.asarray(found.pred_masks).shape == (0, 20, 30)


def test_outlines_are_filled_at_the_size_of_the_output():
    square = torch.tensor([[[2.0, 1], [6, 1], [6, 5], [2, 5]]])
    found = finish(instances_with(OutlineMasks(square), (8, 8)), 16, 24, "bitmask")
    expected = torch.zeros(16, 24, dtype=torch.bool)
    expected[2:10, 6:18] = True
    assert found.pred_masks[0].equal(expected)
    assert found.pred_boxes.tensor.tolist() == [[6, 2, 18, 10]]


def test_an_outline_outside_the_image_is_cut():
    points = torch.tensor(
        [[[-4.0, -4], [4, -4], [4, 4], [-4, 4]], [[20.0, 20], [30, 20], [30, 30], [20, 30]]]
    )
    found = finish(instances_with(OutlineMasks(points), (8, 8)), 8, 8, "bitmask")
    assert found.pred_classes.tolist() == [0]
    assert found.pred_masks[0].sum() == 16
