from __future__ import annotations

from seg_plugins.ops import panoptic_merge
from seg_plugins.ops.panoptic_merge import merge_segments
from seg_plugins.ops.run_length import RunLengthMasks

import numpy as np
import pytest
import torch
from devices import host_never_waits

FORMS = ["masks", "run_lengths", "portable", pytest.param("cuda", marks=pytest.mark.needs_cuda)]


@pytest.fixture(params=FORMS)
def merge(request, monkeypatch):
    """The operator on bitmasks, on run lengths, without the compiled extension, and on a GPU."""

    def call(masks, order, candidate, labels, is_stuff, overlap=0.5, area=4):
        if request.param == "portable":
            monkeypatch.setattr(panoptic_merge, "compiled", lambda: False)
        elif request.param == "run_lengths":
            masks = RunLengthMasks.from_bitmasks(masks)
        tensors = [torch.as_tensor(order), torch.as_tensor(candidate), labels, is_stuff]
        if request.param == "cuda":
            masks, *tensors = (tensor.cuda() for tensor in (masks, *tensors))
        found = merge_segments(
            masks, *tensors, overlap_threshold=overlap, stuff_area_threshold=area
        )
        return tuple(part.tolist() for part in found)

    return call


def slow_merge(masks, order, candidate, labels, is_stuff, overlap, area):
    """The rule, pixel by pixel."""
    height, width = labels.shape
    pixels = [(y, x) for y in range(height) for x in range(width)]
    owner, kept, count = {}, [], 0
    for index, wanted in zip(order, candidate, strict=True):
        inside = [p for p in pixels if masks[index][p]]
        taken = [p for p in inside if p in owner]
        free = len(inside) - len(taken)
        kept.append(bool(wanted and free and len(taken) / len(inside) <= overlap))
        if kept[-1]:
            count += 1
            owner |= {p: count for p in inside if p not in owner}
    areas = [0] * len(is_stuff)
    for p in pixels:
        areas[labels[p]] += p not in owner
    stuff_kept = []
    numbers = {}
    for label, stuff in enumerate(is_stuff):
        stuff_kept.append(bool(stuff and areas[label] and areas[label] >= area))
        if stuff_kept[-1]:
            count += 1
            numbers[label] = count
    ids = [[owner.get((y, x), numbers.get(labels[y, x].item(), 0)) for x in range(width)]
           for y in range(height)]  # fmt: skip
    return ids, kept, stuff_kept, areas


def test_hand_made_scene(merge):
    """A 4x6 image: two overlapping instances, a hidden one, an empty one, one left out."""
    masks = torch.zeros(5, 4, 6, dtype=torch.bool)
    masks[0, :, :2] = True  # 8 pixels
    masks[1, :, 1:5] = True  # 16 pixels, 4 of them the first one's
    masks[2, :2, 1:3] = True  # 4 pixels, all claimed by then
    masks[4, :, 5] = True
    labels = torch.full((4, 6), 2)
    labels[0, 5] = 1
    is_stuff = torch.tensor([False, True, True])
    found = merge(masks, [0, 1, 2, 3, 4], [True] * 4 + [False], labels, is_stuff, area=2)
    row = [1, 1, 2, 2, 2]
    assert found[0] == [[*row, 0], [*row, 3], [*row, 3], [*row, 3]]
    assert found[1] == [True, True, False, False, False]
    assert found[2] == [False, False, True]
    assert found[3] == [0, 1, 3]


@pytest.mark.parametrize("area", [0, -3, 0.5])
def test_what_gets_no_pixel_is_no_segment(merge, area):
    """The second instance lies below the first, label 2 below both, and label 3 is nowhere."""
    masks = torch.zeros(2, 2, 3, dtype=torch.bool)
    masks[0, :, :2] = True
    masks[1, :, 0] = True
    labels = torch.tensor([[2, 2, 1], [0, 0, 1]])
    is_stuff = torch.tensor([False, True, True, True])
    found = merge(masks, [0, 1], [True, True], labels, is_stuff, overlap=1.0, area=area)
    assert found[0] == [[1, 1, 2], [1, 1, 2]]
    assert found[1] == [True, False]
    assert found[2] == [False, True, False, False]
    assert found[3] == [0, 2, 0, 0]


@pytest.mark.parametrize("seed", range(12))
def test_equals_the_slow_rule(merge, seed):
    rng = np.random.default_rng(seed)
    height, width, count = rng.integers(1, 24), rng.integers(1, 40), rng.integers(0, 9)
    masks = np.zeros((count, height, width), bool)
    for mask in masks:
        y, x = rng.integers(0, height), rng.integers(0, width)
        mask[y : y + rng.integers(1, 16), x : x + rng.integers(1, 24)] = True
        mask &= rng.random(mask.shape) < 0.9
    labels = rng.integers(0, 4, (height, width))
    is_stuff = np.array([False, True, True, seed % 2 == 0])
    order, candidate = rng.permutation(count), rng.random(count) < 0.8
    overlap, area = rng.choice([0.0, 0.25, 0.5, 1.0]), float(rng.choice([0, 3, 40]))
    found = merge(
        torch.from_numpy(masks), order, candidate, torch.from_numpy(labels),
        torch.from_numpy(is_stuff), overlap, area,
    )  # fmt: skip
    expected = slow_merge(masks, order, candidate, labels, is_stuff, overlap, area)
    assert found == tuple(expected)


def test_many_pixels_are_counted_exactly(merge):
    """More than one block of the word sums, with sides that eight does not divide."""
    masks = torch.zeros(2, 301, 203, dtype=torch.bool)
    masks[0] = True
    masks[0, 0, :5] = False
    masks[1] = True
    labels = torch.zeros(301, 203, dtype=torch.int64)
    share = (301 * 203 - 5) / (301 * 203)  # of the second mask is claimed
    for overlap, kept in ((share, True), (np.nextafter(share, 0), False)):
        found = merge(masks, [0, 1], [True, True], labels, torch.tensor([False]), overlap)
        assert found[1] == [True, kept]


def test_the_form_for_devices_never_waits(monkeypatch):
    masks = torch.rand(6, 20, 30, generator=torch.Generator().manual_seed(0)) < 0.3
    order, candidate = torch.tensor([3, 1, 0, 5, 4, 2]), torch.tensor([True] * 5 + [False])
    labels, is_stuff = torch.arange(600).reshape(20, 30) % 3, torch.tensor([False, True, True])
    expected = slow_merge(masks, order.tolist(), candidate.tolist(), labels, is_stuff, 0.6, 40)
    with host_never_waits("cpu"):
        ids, kept = panoptic_merge._claim(masks, order, candidate, 0.6, windows=None)
        found = panoptic_merge._fill_stuff(ids, kept, labels, is_stuff, 40)
    assert tuple(part.tolist() for part in found) == tuple(expected)


def test_label_outside_the_classes():
    labels = torch.tensor([[0, 3]])
    none = torch.zeros(0, dtype=torch.int64)
    with pytest.raises(ValueError, match="label 3 is outside the 2 classes"):
        merge_segments(
            torch.zeros(0, 1, 2, dtype=torch.bool), none, none.bool(), labels,
            torch.tensor([False, True]), overlap_threshold=0.5, stuff_area_threshold=0,
        )  # fmt: skip


def test_size_that_differs():
    none = torch.zeros(0, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"masks are \(0, 1, 2\), but the labels \(2, 2\)"):
        merge_segments(
            torch.zeros(0, 1, 2, dtype=torch.bool), none, none.bool(), torch.zeros(2, 2).long(),
            torch.tensor([True]), overlap_threshold=0.5, stuff_area_threshold=0,
        )  # fmt: skip


@pytest.mark.parametrize("size", [(0, 3), (3, 0), (0, 0), (1, 1)])
def test_images_without_pixels(merge, size):
    masks = torch.ones(2, *size, dtype=torch.bool)
    ids, kept, stuff, areas = merge(
        masks, [1, 0], [True, True], torch.zeros(size).long(), torch.tensor([True]), area=0
    )
    filled = size == (1, 1)
    assert torch.tensor(ids).numel() == filled
    assert kept == [filled, False]
    assert stuff == [False]  # an instance covers it: not a pixel is left
    assert areas == [0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"order": torch.zeros(1, dtype=torch.int32)}, "order .*torch.int64, got .*torch.int32"),
        ({"candidate": torch.ones(1)}, "candidate .*torch.bool, got .*torch.float32"),
        ({"candidate": torch.ones(2, dtype=torch.bool)}, "1 indices in order, but 2 candidates"),
        (
            {"labels": torch.zeros(2, 2, dtype=torch.uint8)},
            "labels .*int64, got .*uint8",
        ),
        ({"is_stuff": torch.ones(1)}, "is_stuff .*torch.bool, got .*torch.float32"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    arguments = {
        "masks": torch.zeros(1, 2, 2, dtype=torch.bool),
        "order": torch.zeros(1, dtype=torch.int64),
        "candidate": torch.ones(1, dtype=torch.bool),
        "labels": torch.zeros(2, 2, dtype=torch.int64),
        "is_stuff": torch.tensor([True]),
    }
    with pytest.raises(ValueError, match=message):
        merge_segments(**{**arguments, **change}, overlap_threshold=0.5, stuff_area_threshold=0)
