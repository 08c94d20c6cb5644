from __future__ import annotations

from seg_plugins.ops import mask_paste
from seg_plugins.ops.mask_paste import paste_masks

import numpy as np
import pycocotools.mask as coco_mask
import pytest
import torch
from detectron2.layers import paste_masks_in_image
from devices import on_each_device


def smooth_masks(count, size=28):
    """Blobs with soft edges and some noise, as a mask head gives them."""
    coarse = torch.randn(count, 1, 5, 5)
    fine = torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic")
    return (4 * fine + torch.randn(count, 1, size, size)).sigmoid()[:, 0]


def random_boxes(count, height, width):
    corner = torch.rand(count, 2) * torch.tensor([width, height]) * 0.9
    size = torch.exp(torch.rand(count, 2) * 5)
    boxes = torch.cat([corner, corner + size], dim=1)
    boxes[:, 0::2] = boxes[:, 0::2].clamp(0, width)
    boxes[:, 1::2] = boxes[:, 1::2].clamp(0, height)
    return boxes


def detectron2_strings(masks, boxes, height, width):
    bitmasks = paste_masks_in_image(masks, boxes, (height, width))
    return [
        coco_mask.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))["counts"]
        for mask in bitmasks
    ]


def strings(found):
    return [found.string(i) for i in range(len(found))]


@pytest.fixture(params=["compiled", "fallback"], autouse=True)
def form(request, monkeypatch):
    if request.param == "fallback":
        monkeypatch.setattr(mask_paste, "compiled", lambda: False)
    elif not mask_paste.compiled():
        pytest.skip("the extension is not built")
    return request.param


@pytest.mark.parametrize(("size", "count"), [(28, 150), (14, 60), (1, 10), (56, 20)])
def test_equals_detectron2_byte_for_byte(size, count):
    masks, boxes = smooth_masks(count, size), random_boxes(count, 151, 203)
    found = paste_masks(masks, boxes, 151, 203)
    assert strings(found) == detectron2_strings(masks, boxes, 151, 203)


def test_ties_at_the_threshold_equal_detectron2s():
    """Masks of steps of a quarter: whole runs of pixels lie exactly at 0.5."""
    masks = (torch.rand(60, 28, 28) * 4).round() / 4
    boxes = random_boxes(60, 90, 120).round()
    masks[0] = 0.5
    found = paste_masks(masks, boxes, 90, 120)
    assert strings(found) == detectron2_strings(masks, boxes, 90, 120)


@pytest.mark.parametrize(
    "box",
    [
        [0.0, 0.0, 40.0, 30.0],  # the whole image
        [-10.5, -7.0, 60.0, 45.0],  # beyond it
        [5.2, 5.3, 5.4, 20.0],  # thinner than a pixel
        [7.0, 7.0, 7.0, 7.0],  # no area
        [39.5, 29.5, 40.0, 30.0],  # the last pixel
    ],
)
def test_odd_boxes_equal_detectron2s(box):
    masks, boxes = smooth_masks(1), torch.tensor([box])
    found = paste_masks(masks, boxes, 30, 40)
    assert strings(found) == detectron2_strings(masks, boxes, 30, 40)


@on_each_device
def test_masks_of_a_device_give_the_same_runs(device):
    masks, boxes = smooth_masks(20), random_boxes(20, 90, 120)
    expected = strings(paste_masks(masks, boxes, 90, 120))
    assert strings(paste_masks(masks.to(device), boxes.to(device), 90, 120)) == expected


def test_box_of_ones_is_a_rectangle():
    found = paste_masks(torch.ones(1, 28, 28), torch.tensor([[10.0, 5.0, 20.0, 9.0]]), 30, 40)
    expected = np.zeros((30, 40), np.uint8)
    expected[5:9, 10:20] = 1
    np.testing.assert_array_equal(found.to_bitmasks()[0], expected)


def test_full_and_empty_masks():
    box = torch.tensor([[0.0, 0.0, 4.0, 3.0]]).expand(2, 4)
    masks = torch.stack([torch.ones(28, 28), torch.zeros(28, 28)])
    found = paste_masks(masks, box, 3, 4)
    np.testing.assert_array_equal(found.to_bitmasks()[0], np.ones((3, 4)))
    np.testing.assert_array_equal(found.to_bitmasks()[1], np.zeros((3, 4)))


def test_no_masks():
    assert len(paste_masks(torch.zeros(0, 28, 28), torch.zeros(0, 4), 3, 4)) == 0


def test_wrong_inputs_say_what_is_right():
    with pytest.raises(ValueError, match=r"\(N, 4\)"):
        paste_masks(torch.zeros(2, 28, 28), torch.zeros(3, 4), 5, 5)
    with pytest.raises(ValueError, match="finite"):
        paste_masks(torch.zeros(1, 28, 28), torch.tensor([[0.0, 0, float("nan"), 1]]), 5, 5)
    with pytest.raises(ValueError, match=r"\(N, M, M\).* got \(1, 28, 14\)"):
        paste_masks(torch.zeros(1, 28, 14), torch.zeros(1, 4), 5, 5)
    with pytest.raises(ValueError, match="not be empty, got 0x5"):
        paste_masks(torch.zeros(1, 28, 28), torch.zeros(1, 4), 0, 5)


@pytest.mark.parametrize(
    "box", [[-1e9, -1e9, 1e9, 1e9], [-3e38, 0.0, 3e38, 30.0]], ids=["huge", "infinite extent"]
)
def test_absurd_boxes_equal_detectron2s(box):
    masks, boxes = smooth_masks(1), torch.tensor([box])
    found = paste_masks(masks, boxes, 30, 40)
    assert strings(found) == detectron2_strings(masks, boxes, 30, 40)


@pytest.mark.parametrize(
    "box",
    [
        [1e30, 1e30, 2e30, 2e30],
        [-90.0, 0, -50, 30],
        [0.0, 50, 40, 70],
        [9.0, 9, 3, 3],
        [9.0, 3, 3, 9],
    ],
)
def test_boxes_without_a_pixel_of_the_image_give_empty_masks(box):
    """Detectron2's own pasting fails on most of them."""
    found = paste_masks(torch.ones(1, 28, 28), torch.tensor([box]), 30, 40)
    assert not found.to_bitmasks().any()
    assert len(found) == 1
