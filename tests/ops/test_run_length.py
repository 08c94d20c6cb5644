"""Run-length masks, compiled and fallback, against pycocotools."""

from __future__ import annotations

from seg_plugins.ops.run_length import (
    RunLengthMasks,
    boundary_iou,
    encode_label_map,
    mask_areas,
)

import numpy as np
import pycocotools.mask as coco_mask
import pytest
import torch
from devices import host_waits, on_each_device

pytestmark = pytest.mark.usefixtures("form")
SIZES = [(1, 1), (1, 9), (9, 1), (16, 16), (31, 70), (130, 67)]


def random_masks(rng, count, height, width):
    """Empty, full, single pixels, speckle, rectangles and columns that touch top and bottom."""
    masks = np.zeros((count, height, width), bool)
    for i, mask in enumerate(masks):
        kind = i % 6
        if kind == 1:
            mask[:] = True
        elif kind == 2:
            mask[rng.integers(height), rng.integers(width)] = True
        elif kind == 3:
            mask[:] = rng.random((height, width)) < 0.3
        elif kind == 4:
            y, x = rng.integers(height), rng.integers(width)
            mask[y : y + height // 2 + 1, x : x + width // 2 + 1] = True
        elif kind == 5:
            mask[:, rng.integers(width) :] = True
    return masks


@pytest.mark.parametrize("size", SIZES)
def test_masks_encode_byte_for_byte_as_pycocotools(size):
    masks = random_masks(np.random.default_rng(5), 18, *size)
    packed = RunLengthMasks.from_bitmasks(masks)
    for mask, rle in zip(masks, packed.to_coco(), strict=True):
        assert (
            rle["counts"].encode() == coco_mask.encode(np.asfortranarray(mask, np.uint8))["counts"]
        )
    np.testing.assert_array_equal(packed.to_bitmasks(), masks)
    assert len(packed[[2, 0]]) == 2
    assert packed[[2, 0]].string(1) == packed.string(0)


@on_each_device
def test_masks_of_a_device_are_copied_once_however_many_there_are(device):
    rng = np.random.default_rng(6)
    for count in (2, 18):
        masks = random_masks(rng, count, 31, 70)
        on_device = torch.from_numpy(masks).to(device)
        with host_waits(device) as found:
            packed = RunLengthMasks.from_bitmasks(on_device)
        copies = found.count("cpu") if device == "cpu" else len(found)
        assert copies == 1
        assert packed.to_coco() == RunLengthMasks.from_bitmasks(masks).to_coco()


def test_values_other_than_one_count_as_set():
    mask = np.array([[[0, 3, 1], [2, 0, 255]]], np.uint8)
    expected = coco_mask.encode(np.asfortranarray(mask[0] != 0, np.uint8))["counts"]
    assert RunLengthMasks.from_bitmasks(mask).string(0) == expected


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_label_maps_encode_as_pycocotools(size, dtype):
    rng = np.random.default_rng(6)
    coarse = rng.integers(0, 4, (size[0] // 5 + 1, size[1] // 5 + 1)) * 60
    labels = np.kron(coarse, np.ones((5, 5)))[: size[0], : size[1]].astype(dtype)
    found = encode_label_map(labels)
    assert list(found) == np.unique(labels).tolist()
    for label, counts in found.items():
        assert counts == coco_mask.encode(np.asfortranarray(labels == label, np.uint8))["counts"]


def slow_band(mask, radius):
    """The mask's pixels whose square of side 2 * radius + 1 is not all inside it."""
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(mask, radius), (2 * radius + 1,) * 2)
    return mask & ~windows.all(axis=(2, 3))


def coco_iou(dt, gt, crowd):
    rles = [[coco_mask.encode(np.asfortranarray(m, np.uint8)) for m in masks] for masks in (dt, gt)]
    return coco_mask.iou(*rles, crowd.astype(int).tolist())


@pytest.mark.parametrize("radius", [1, 2, 5, 33])
@pytest.mark.parametrize("size", [*SIZES, (64, 80), (129, 128)])
def test_boundary_iou_equals_pycocotools_on_masks_and_slow_bands(size, radius):
    rng = np.random.default_rng(7)
    dt, gt = (random_masks(rng, n, *size) for n in (12, 9))
    dt_groups, gt_groups = rng.integers(0, 3, 12), rng.integers(0, 2, 9)
    crowd = rng.random(9) < 0.4
    overlaps, areas = boundary_iou(
        RunLengthMasks.from_bitmasks(dt),
        RunLengthMasks.from_bitmasks(gt),
        detection_groups=dt_groups,
        truth_groups=gt_groups,
        crowd=crowd,
        radius=radius,
    )
    bands = [np.array([slow_band(mask, radius) for mask in masks]) for masks in (dt, gt)]
    expected = np.minimum(coco_iou(dt, gt, crowd), coco_iou(*bands, crowd))
    np.testing.assert_array_equal(overlaps, expected * (dt_groups[:, None] == gt_groups))
    np.testing.assert_array_equal(areas, dt.sum(axis=(1, 2)))


def one_pair(found, true, radius=1):
    """Overlap of one mask with another of its group, and its area."""
    zero, no = np.zeros(1, np.int64), np.zeros(1, bool)
    groups = {"detection_groups": zero, "truth_groups": zero, "crowd": no}
    overlaps, areas = boundary_iou(found, true, **groups, radius=radius)
    return overlaps[0, 0], areas[0]


def test_boundary_iou_by_hand():
    """A 6 x 6 square one pixel beside its like: bands of 20 pixels share 10, unions hold 30."""
    masks = np.zeros((2, 9, 9), bool)
    masks[0, 1:7, 1:7] = masks[1, 1:7, 2:8] = True
    found, true = (RunLengthMasks.from_bitmasks(masks[i : i + 1]) for i in (0, 1))
    # Top and bottom rows share 5 pixels each; the four columns at the sides share none.
    assert one_pair(found, true) == (10 / 30, 36)
    # A band as wide as half of the square is all of it: 30 shared of 42.
    assert one_pair(found, true, radius=3) == (30 / 42, 36)


def test_runs_with_empty_counts_are_read_as_pycocotools_reads_them():
    # 3 background, 2 foreground, 0 background, 4 foreground, 3 background.
    rle = coco_mask.frPyObjects({"size": [3, 4], "counts": [3, 2, 0, 4, 3]}, 3, 4)
    packed = RunLengthMasks.from_coco([rle], 3, 4)
    whole = RunLengthMasks.from_bitmasks(np.ones((1, 3, 4), bool))
    assert one_pair(packed, whole, radius=2) == (0.5, 6)
    assert mask_areas(packed).tolist() == [6]


def test_areas_of_more_masks_than_a_byte_counts():
    masks = random_masks(np.random.default_rng(3), 300, 7, 9)
    areas = mask_areas(RunLengthMasks.from_bitmasks(masks))
    assert areas.dtype == np.int64
    np.testing.assert_array_equal(areas, masks.sum(axis=(1, 2)))


@pytest.mark.parametrize("text", [b"\x01", b"zzz", b"PPPP", b"3", b"", b"00", b"`"])
def test_malformed_runs_raise(form, text):
    if form == "fallback":
        pytest.skip("pycocotools reads malformed strings without a check")
    good = RunLengthMasks.from_bitmasks(np.ones((1, 3, 4), bool))
    bad = RunLengthMasks.from_strings([text], 3, 4)
    for read in (lambda: one_pair(bad, good), lambda: mask_areas(bad)):
        with pytest.raises(ValueError, match="run-length mask 0"):
            read()


def test_random_strings_are_read_or_refused(form):
    if form == "fallback":
        pytest.skip("pycocotools reads malformed strings without a check")
    rng = np.random.default_rng(0)
    good = RunLengthMasks.from_bitmasks(np.ones((1, 3, 4), bool))
    read = 0
    for _ in range(3000):
        text = rng.integers(48, 112 if rng.random() < 0.5 else 64, rng.integers(1, 9), np.uint8)
        bad = RunLengthMasks(3, 4, np.array([0, len(text)]), text)
        try:
            _, area = one_pair(bad, good)
        except ValueError:
            with pytest.raises(ValueError, match="run-length mask 0"):
                mask_areas(bad)
            continue
        read += 1
        assert area == mask_areas(bad)[0] == bad.to_bitmasks().sum()
    assert read > 10


def test_rle_of_another_size_raises():
    rle = coco_mask.encode(np.asfortranarray(np.ones((3, 4), np.uint8)))
    with pytest.raises(ValueError, match="mask 0 is 3x4, its image 4x3"):
        RunLengthMasks.from_coco([rle], 4, 3)


@pytest.mark.parametrize("size", [(0, 0), (0, 4), (4, 0)])
def test_masks_of_images_without_pixels(size):
    masks = RunLengthMasks.from_bitmasks(np.zeros((2, *size), bool))
    assert masks.to_bitmasks().shape == (2, *size)
    assert encode_label_map(np.zeros(size, np.uint8)) == {}
    zero, no = np.zeros(2, np.int64), np.zeros(2, bool)
    groups = {"detection_groups": zero, "truth_groups": zero, "crowd": no}
    overlaps, areas = boundary_iou(masks, masks, **groups, radius=1)
    assert not overlaps.any()
    assert areas.tolist() == mask_areas(masks).tolist() == [0, 0]


def test_iteration_gives_the_bitmasks_one_by_one():
    masks = np.random.default_rng(4).random((3, 5, 4)) < 0.5
    found = list(RunLengthMasks.from_bitmasks(masks))
    assert len(found) == 3
    np.testing.assert_array_equal(np.stack(found), masks)


def test_views_encode_as_their_copies():
    masks = np.random.default_rng(4).random((6, 9, 8)) < 0.5
    for view in (masks[::2], masks[:, ::-1], masks.transpose(0, 2, 1), masks[:, 1:, ::3]):
        expected = RunLengthMasks.from_bitmasks(view.copy())
        assert RunLengthMasks.from_bitmasks(view).to_coco() == expected.to_coco()
    labels = (np.random.default_rng(5).random((9, 8)) * 4).astype(np.uint8)
    for view in (labels[::2], labels[:, ::-1], labels.T):
        assert encode_label_map(view) == encode_label_map(view.copy())


def test_wrong_arguments_say_what_is_right():
    with pytest.raises(ValueError, match=r"\(N, H, W\) bool or uint8, got \(3, 4\)"):
        RunLengthMasks.from_bitmasks(np.zeros((3, 4), bool))
    with pytest.raises(ValueError, match=r"got .* torch.float64"):
        RunLengthMasks.from_bitmasks(np.zeros((1, 3, 4)))
    with pytest.raises(ValueError, match=r"uint8 or uint16, got .* int64"):
        encode_label_map(np.zeros((3, 4), np.int64))
    wide, high = (RunLengthMasks.from_bitmasks(np.ones((1, *s), bool)) for s in ((3, 4), (4, 3)))
    with pytest.raises(ValueError, match=r"\(3, 4\), truths of \(4, 3\)"):
        one_pair(wide, high)
    with pytest.raises(ValueError, match="radius must be at least 1, not 0"):
        one_pair(wide, wide, radius=0)
