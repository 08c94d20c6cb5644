"""Polygons, run lengths and bitmasks against pycocotools, called as its own demo does."""

from __future__ import annotations

import ast
from pathlib import Path

import seg_plugins
from seg_plugins.io.masks import (
    boxes_to_run_lengths,
    encode_bitmasks,
    intersection,
    mask_area,
    mask_box,
    to_bitmask,
    to_bitmasks,
    to_crop,
    to_polygons,
    to_run_lengths,
)
from seg_plugins.ops.run_length import RunLengthMasks

import numpy as np
import pycocotools.mask as coco_mask
import pytest
from pycocotools.coco import COCO

HEIGHT, WIDTH = 40, 57
PACKAGE = Path(seg_plugins.__file__).parent


def polygons(rng: np.random.Generator) -> list[list[float]]:
    """One to three of them, some beyond the image."""
    return [
        rng.uniform(-10, 60, 2 * rng.integers(3, 9)).tolist() for _ in range(rng.integers(1, 4))
    ]


def by_coco(segmentation) -> np.ndarray:
    coco = COCO()
    coco.imgs = {1: {"height": HEIGHT, "width": WIDTH}}
    return coco.annToMask({"image_id": 1, "segmentation": segmentation}).astype(bool)


@pytest.mark.parametrize("seed", range(20))
def test_every_form_gives_the_pixels_of_pycocotools(seed):
    rng = np.random.default_rng(seed)
    flat = polygons(rng)
    expected = by_coco(flat)
    packed = coco_mask.encode(np.asfortranarray(expected, np.uint8))
    runs = np.diff(np.flatnonzero(np.diff(np.r_[-1, expected.T.ravel(), -1])))
    # A list of lengths begins with the pixels outside.
    counts = [0] * bool(expected[0, 0]) + runs.tolist()
    forms = {
        "polygons": flat,
        "arrays": [np.array(points) for points in flat],
        "packed": packed,
        "text": {**packed, "counts": packed["counts"].decode()},
        "lengths": {"size": [HEIGHT, WIDTH], "counts": counts},
    }
    for name, form in forms.items():
        assert np.array_equal(to_bitmask(form, HEIGHT, WIDTH), expected), name
        rle = to_run_lengths(form, HEIGHT, WIDTH)
        assert mask_area(rle) == expected.sum()
        assert mask_box(rle) == tuple(coco_mask.toBbox(packed).astype(int))
    assert encode_bitmasks(expected[None]) == [packed]
    assert RunLengthMasks.from_bitmasks(expected[None]).string(0) == packed["counts"]
    traced = to_polygons(expected)
    assert np.array_equal(by_coco(traced) if traced else np.zeros_like(expected), expected)


def test_many_masks_at_once():
    masks = np.random.default_rng(0).random((5, HEIGHT, WIDTH)) < 0.3
    rles = encode_bitmasks(masks.astype(np.uint8) * 7)
    assert np.array_equal(to_bitmasks(rles, HEIGHT, WIDTH), masks)
    shared = intersection(rles[0], rles[1])
    assert np.array_equal(to_bitmask(shared, HEIGHT, WIDTH), masks[0] & masks[1])
    assert encode_bitmasks(masks[:0]) == []
    assert to_bitmasks([], 3, 4).shape == (0, 3, 4)


def test_boxes():
    boxes = np.array([[2.0, 3, 10, 5], [0, 0, 57, 40]])
    one, whole = to_bitmasks(boxes_to_run_lengths(boxes, HEIGHT, WIDTH), HEIGHT, WIDTH)
    assert one.sum() == 50
    assert one[3:8, 2:12].all()
    assert whole.all()
    assert boxes_to_run_lengths(boxes[:0], HEIGHT, WIDTH) == []


def test_masks_change_form_in_one_place():
    users = {
        file.relative_to(PACKAGE).as_posix()
        for file in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if (isinstance(node, ast.Import) and "pycocotools.mask" in [a.name for a in node.names])
        or (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pycocotools"))
    }
    assert users == {"io/masks.py", "ops/run_length.py"}  # the second for overlaps alone


@pytest.mark.parametrize("seed", range(40))
def test_the_crop_of_a_mask(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 70, 2)
    mask = rng.random((height, width)) < rng.choice([0, 0.01, 0.5, 1])
    if seed % 2:  # long runs, whose lengths take several letters
        mask = np.kron(mask, np.ones((40, 30), bool))
    (rle,) = encode_bitmasks(mask[None])
    crop, (x, y) = to_crop(rle)
    expected = np.zeros(mask.shape, bool)
    expected[y : y + crop.shape[0], x : x + crop.shape[1]] = crop
    assert np.array_equal(expected, mask)
    assert (x, y, crop.shape[1], crop.shape[0]) == mask_box(rle)
    again, _ = to_crop({**rle, "counts": rle["counts"].decode()})
    assert np.array_equal(again, crop)
