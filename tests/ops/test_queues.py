"""Operators as a device's queue sees them: no wait, streams, a second device, CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from seg_plugins.modeling.roi_pooler import FusedROIPooler
from seg_plugins.ops import panoptic_merge, roi_align
from seg_plugins.ops._extension import load_extension
from seg_plugins.ops.max_unpool import max_pool_indexed, max_unpool_indexed
from seg_plugins.ops.suppression import fast_nms, mask_nms, matrix_nms, occupancy_suppression

import pytest
import torch
from detectron2.structures import Boxes
from devices import host_never_waits, host_waits, on_each_device, other_queue, recorded
from torch import Tensor

SCALES = [1 / 2, 1 / 4]
Work = Callable[..., tuple[Tensor, ...]]


def pooled(fine: Tensor, coarse: Tensor, boxes: Tensor, reduce: str = "avg") -> tuple[Tensor, ...]:
    """Output and gradients of RoIAlign."""
    maps = [m.detach().requires_grad_() for m in (fine, coarse)]
    output = roi_align(maps, boxes, 3, SCALES, 0, True, reduce, 40, 2)
    return (output.detach(), *torch.autograd.grad(output.square().sum(), maps))


def pooled_in_a_fixed_order(*tensors: Tensor) -> tuple[Tensor, ...]:
    torch.use_deterministic_algorithms(True)
    try:
        return pooled(*tensors)
    finally:
        torch.use_deterministic_algorithms(False)


def pooled_by_lists(fine: Tensor, coarse: Tensor, boxes: Tensor) -> tuple[Tensor, ...]:
    pooler = FusedROIPooler(3, SCALES, 0, "ROIAlignV2", 40, 2)
    lists = [Boxes(boxes[:7, 1:].clone()), Boxes(boxes[7:, 1:].clone())]
    return (pooler([fine, coarse], lists),)


def unpooled(x: Tensor) -> tuple[Tensor, ...]:
    x = x.detach().requires_grad_()
    values, codes = max_pool_indexed(x, 3, 2)
    output = max_unpool_indexed(values, codes, (x.shape[-2], x.shape[-1]), 3, 2)
    return (output.detach(), *torch.autograd.grad(output.square().sum(), [x]))


def merged(*tensors: Tensor) -> tuple[Tensor, ...]:
    """On the CPU the form for devices, too: the operator would run another one there."""
    masks, order, candidate, labels, is_stuff = tensors
    if masks.device.type != "cpu":
        thresholds = {"overlap_threshold": 0.6, "stuff_area_threshold": 20}
        return tuple(panoptic_merge.merge_segments(*tensors, **thresholds))
    ids, kept = panoptic_merge._claim(masks, order, candidate, 0.6, windows=None)
    return tuple(panoptic_merge._fill_stuff(ids, kept, labels, is_stuff, 20))


def maps_and_boxes(count: int) -> list[Tensor]:
    corner, size = torch.rand(count, 2) * 60, torch.rand(count, 2) * 50 + 1
    image = torch.arange(count)[:, None] % 2
    boxes = torch.cat([image, corner, corner + size], dim=1)
    maps = [torch.randn(2, 8, side, side) for side in (48, 24)]
    return [*(m.contiguous(memory_format=torch.channels_last) for m in maps), boxes]


def masks_and_scores(count: int) -> list[Tensor]:
    masks = torch.rand(count, 12, 14) < 0.4
    return [masks, torch.rand(count), torch.arange(count) % 3]


def boxes_and_scores(count: int) -> list[Tensor]:
    corner = torch.rand(count, 2) * 20
    return [torch.cat([corner, corner + 9], dim=1), torch.rand(count), torch.arange(count) % 3]


def segments(count: int) -> list[Tensor]:
    labels = torch.arange(12 * 14).reshape(12, 14) % 4
    masks = torch.rand(count, 12, 14) < 0.2
    return [masks, torch.randperm(count), torch.arange(count) != 4, labels, torch.arange(4) > 0]


# What each takes, for a number of items.
OPERATORS: dict[str, tuple[Work, Callable[[int], list[Tensor]]]] = {
    "roi_align": (pooled, maps_and_boxes),
    "roi_align, max": (lambda *tensors: pooled(*tensors, reduce="max"), maps_and_boxes),
    "roi_align, fixed order": (pooled_in_a_fixed_order, maps_and_boxes),
    "pooler": (pooled_by_lists, maps_and_boxes),
    "max_unpool": (unpooled, lambda count: [torch.randn(2, count, 9, 8)]),
    "matrix_nms": (lambda *t: (matrix_nms(*t),), masks_and_scores),
    "matrix_nms, linear": (lambda *t: (matrix_nms(*t, kernel="linear"),), masks_and_scores),
    "mask_nms": (lambda *t: (mask_nms(*t, 0.3),), masks_and_scores),
    "fast_nms": (lambda *t: (fast_nms(*t, 0.3),), boxes_and_scores),
    "occupancy": (
        lambda masks, scores, at: (occupancy_suppression(masks, scores, points=at),),
        masks_and_scores,
    ),
    "merge_segments": (merged, segments),
}
pytestmark = [
    on_each_device,
    pytest.mark.parametrize("name", OPERATORS),
    pytest.mark.skipif(not load_extension().loaded, reason=load_extension().reason or ""),
]


def inputs(name: str, device: str, count: int = 15) -> list[Tensor]:
    torch.manual_seed(count)
    return [tensor.to(device) for tensor in OPERATORS[name][1](count)]


def assert_close(found: Any, expected: Any) -> None:
    assert len(found) == len(expected)
    for ours, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.cpu(), reference.cpu())


def test_a_device_gives_what_the_cpu_gives(name: str, device: str) -> None:
    work = OPERATORS[name][0]
    assert_close(work(*inputs(name, device)), work(*inputs(name, "cpu")))


def test_the_host_never_waits(name: str, device: str) -> None:
    work, given = OPERATORS[name][0], inputs(name, device)
    work(*given)  # what is set up once may wait
    with host_never_waits(device):
        work(*given)


def test_work_stays_on_its_stream(name: str, device: str) -> None:
    """The true inputs come late, on that stream: work on another would see zeros."""
    work, given = OPERATORS[name][0], inputs(name, device)
    expected = [part.clone() for part in work(*given)]
    late = [torch.zeros_like(tensor) for tensor in given]
    with other_queue(device):
        for place, tensor in zip(late, given, strict=True):
            place.copy_(tensor)
        found = work(*late)
    assert_close(found, expected)


def test_a_second_device(name: str, device: str) -> None:
    if device == "cpu" or torch.cuda.device_count() < 2:
        pytest.skip("needs a second device")
    work = OPERATORS[name][0]
    found = work(*inputs(name, "cuda:1"))  # while the first is the current one
    assert all(part.device == torch.device("cuda:1") for part in found)
    assert_close(found, work(*inputs(name, "cpu")))


def test_a_graph_runs_again_on_other_inputs(name: str, device: str) -> None:
    work, given = OPERATORS[name][0], inputs(name, device)
    static = [torch.zeros_like(tensor) for tensor in given]
    run = recorded(device, lambda: work(*static))
    for place, tensor in zip(static, given, strict=True):
        place.copy_(tensor)
    assert_close(run(), work(*given))


def test_waits_do_not_grow_with_the_items(name: str, device: str) -> None:
    counts = []
    for count in (8, 15):
        given = inputs(name, device, count)
        OPERATORS[name][0](*given)
        with host_waits(device) as found:
            OPERATORS[name][0](*given)
        counts.append(len(found))
    assert counts[0] == counts[1] == 0
