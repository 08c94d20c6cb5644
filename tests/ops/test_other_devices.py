"""MPS and XPU, faked: PyTorch and torchvision do there what compiled operators do elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from seg_plugins.modeling.panoptic_merging import merge_panoptic
from seg_plugins.ops import roi_align, roi_align_operator
from seg_plugins.ops.mask_paste import paste_masks
from seg_plugins.ops.max_unpool import max_pool_indexed, max_unpool_indexed
from seg_plugins.ops.run_length import RunLengthMasks
from seg_plugins.ops.segmentation_metrics import argmax_confusion
from seg_plugins.ops.suppression import fast_nms, mask_nms, matrix_nms, occupancy_suppression

import numpy as np
import pytest
import torch
from detectron2.structures import Instances
from other_device import OtherDevice

SCALES = [1 / 2, 1 / 4]


@pytest.fixture(params=["mps", "xpu"])
def other(request) -> Iterator[OtherDevice]:
    roi_align_operator._notice.cache_clear()
    with OtherDevice(request.param) as mode:
        yield mode


def test_the_fake_refuses_what_the_device_would(other) -> None:
    tensor = other.place(torch.ones(3))
    assert (tensor + 1).device.type == tensor.new_zeros(2).device.type == other.name
    assert torch.zeros(2, device=tensor.device).device.type == other.name
    assert (tensor + 1).tolist() == [2, 2, 2]
    assert tensor.cpu().device.type == "cpu"
    with pytest.raises(AssertionError, match="and of the CPU"):
        tensor + torch.ones(3)
    with pytest.raises(AssertionError, match="no kernel"):
        torch.ops.seg_plugins.encode_masks(other.place(torch.ones(1, 2, 2).bool()))
    if other.name == "mps":
        with pytest.raises(AssertionError, match="float64"):
            tensor.double()


@pytest.mark.parametrize("kernel", [True, False], ids=["torchvision", "no kernel"])
@pytest.mark.parametrize("reduce", ["avg", "max"])
def test_roi_align_with_one_notice(other, caplog, monkeypatch, kernel, reduce) -> None:
    monkeypatch.setattr(roi_align_operator, "_torchvision_takes", lambda device_type: kernel)
    maps = [torch.randn(2, 5, size, size) for size in (32, 16)]
    corner = torch.rand(9, 2) * 40
    boxes = torch.cat([torch.arange(9)[:, None] % 2, corner, corner + 20], dim=1)
    arguments = (3, SCALES, 0, True, reduce, 40, 2)
    theirs = [other.place(m) for m in maps]
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            found = roi_align(theirs, other.place(boxes), *arguments)
    assert found.device.type == other.name
    torch.testing.assert_close(found.cpu(), roi_align(maps, boxes, *arguments))
    runs = (
        "torchvision's operator" if kernel and reduce == "avg" else "plain PyTorch, which is slow,"
    )
    assert [record.getMessage() for record in caplog.records] == [
        f"roi_align has no compiled form for {other.name} tensors: {runs} runs there"
    ]


def test_torchvision_is_asked_by_the_devices_own_key() -> None:
    """Where PyTorch is built without MPS and XPU, it has no kernel for them."""
    keys = {"mps": torch.backends.mps.is_built(), "xpu": torch.xpu._is_compiled()}
    for name, built in keys.items():
        assert roi_align_operator._torchvision_takes(name) <= built


def test_pooling_with_codes(other) -> None:
    x = torch.randn(2, 3, 9, 8)
    values, codes = max_pool_indexed(x, 3, 2)
    back = max_unpool_indexed(values, codes, (9, 8), 3, 2)
    theirs = max_pool_indexed(other.place(x), 3, 2)
    assert torch.equal(theirs[0].cpu(), values)
    assert torch.equal(theirs[1].cpu(), codes)
    found = max_unpool_indexed(*theirs, (9, 8), 3, 2)
    assert found.device.type == other.name
    assert torch.equal(found.cpu(), back)


def test_suppression(other) -> None:
    masks, scores, classes = torch.rand(12, 9, 8) < 0.5, torch.rand(12), torch.arange(12) % 2
    corner = torch.rand(12, 2) * 9
    boxes = torch.cat([corner, corner + 6], dim=1)
    for work, first in (
        (lambda *t: matrix_nms(*t), masks),
        (lambda *t: mask_nms(*t, 0.3), masks),
        (lambda *t: fast_nms(*t, 0.2), boxes),
        (lambda m, s, _: occupancy_suppression(m, s, max_taken=0.4), masks),
    ):
        expected = work(first, scores, classes)
        found = work(*map(other.place, (first, scores, classes)))
        assert found.device.type == other.name
        torch.testing.assert_close(found.cpu(), expected)


@pytest.mark.parametrize("run_lengths", [False, True])
def test_panoptic_merging(other, run_lengths) -> None:
    masks, labels = torch.rand(6, 12, 10) < 0.3, torch.arange(120).reshape(12, 10) % 4
    fields = {"scores": torch.rand(6), "pred_classes": torch.arange(6) % 2}
    thresholds = {"overlap_threshold": 0.6, "stuff_area_threshold": 5, "score_threshold": 0.3}
    packed = RunLengthMasks.from_bitmasks(masks)
    expected = merge_panoptic(
        Instances((12, 10), pred_masks=masks, **fields), labels, 4, **thresholds
    )
    theirs = Instances((12, 10), pred_masks=packed if run_lengths else other.place(masks))
    for name, value in fields.items():
        theirs.set(name, other.place(value))
    ids, segments = merge_panoptic(theirs, other.place(labels), 4, **thresholds)
    assert ids.device.type == other.name
    assert torch.equal(ids.cpu(), expected[0])
    assert segments == expected[1]


def test_masks_and_counts_come_to_the_cpu(other) -> None:
    masks = torch.rand(5, 7, 6) < 0.5
    packed = RunLengthMasks.from_bitmasks(masks)
    assert RunLengthMasks.from_bitmasks(other.place(masks)).to_coco() == packed.to_coco()
    small, boxes = torch.rand(2, 28, 28), torch.tensor([[0.0, 0, 5, 6], [2, 1, 6, 7]])
    pasted = paste_masks(other.place(small), other.place(boxes), 7, 6)
    assert pasted.to_coco() == paste_masks(small, boxes, 7, 6).to_coco()
    scores, target = torch.rand(3, 7, 6), np.zeros((7, 6), np.uint8)
    for ours, reference in zip(
        argmax_confusion(other.place(scores), target, 255),
        argmax_confusion(scores, target, 255),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, reference)
