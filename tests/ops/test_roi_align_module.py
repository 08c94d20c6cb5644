"""The module gives what Detectron2's and torchvision's give for the same arguments and boxes."""

from __future__ import annotations

from seg_plugins.ops import ROIAlign

import detectron2.layers
import pytest
import torch
import torchvision.ops

pytestmark = pytest.mark.usefixtures("device")
PEERS = {"detectron2": detectron2.layers.ROIAlign, "torchvision": torchvision.ops.RoIAlign}


def inputs():
    feature = torch.rand(2, 5, 20, 28)
    corners = torch.rand(12, 2, 2) * torch.tensor([112.0, 80])
    boxes = torch.cat([corners.amin(1), corners.amax(1)], dim=1)
    boxes[0] += torch.tensor([-9.0, -7, 30, 30])  # over the edge
    index = torch.arange(12)[:, None] % 2
    return feature, torch.cat([index, boxes], dim=1)


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize(
    "arguments",
    [
        ((7, 7), 0.25, 0, True),
        ((7, 7), 0.25, 0, False),
        ((3, 5), 0.25, 2, True),
        (4, 0.3, 3, False),
        ([2, 6], 1.0, 0, True),
    ],
    ids=str,
)
def test_equals_its_peers_forward_and_backward(peer, arguments):
    feature, boxes = inputs()
    results = []
    for kind in (ROIAlign, PEERS[peer]):
        x = feature.clone().requires_grad_()
        pooled = kind(*arguments)(x, boxes)
        (gradient,) = torch.autograd.grad(pooled.square().sum(), x)
        results.append((pooled, gradient))
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("counts", [(3, 4), (0, 5), (0, 0)])
def test_takes_a_list_of_boxes_like_torchvision(counts):
    feature, boxes = inputs()
    lists = [boxes[: counts[0], 1:], boxes[5 : 5 + counts[1], 1:]]
    ours, theirs = ((kind((3, 3), 0.25, 2, True)(feature, lists)) for kind in (
        ROIAlign, torchvision.ops.RoIAlign
    ))  # fmt: skip
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert ROIAlign(3, 0.25, 2)(feature[:0], []).shape == (0, 5, 3, 3)


def test_aligned_by_default_as_in_detectron2():
    feature, boxes = inputs()
    names = {"output_size": 3, "spatial_scale": 0.25, "sampling_ratio": 2}
    pooled = ROIAlign(**names)(input=feature, rois=boxes)
    torch.testing.assert_close(pooled, detectron2.layers.ROIAlign(**names)(feature, boxes))
    assert not torch.allclose(pooled, torchvision.ops.RoIAlign(**names)(feature, boxes))


def test_prints_like_its_peers():
    arguments = ((7, 7), 0.25, 0, False)
    assert repr(ROIAlign(*arguments)) == repr(detectron2.layers.ROIAlign(*arguments))
    assert repr(ROIAlign(*arguments)).lower() == repr(torchvision.ops.RoIAlign(*arguments)).lower()


@pytest.mark.parametrize("shape", [(4, 5), (4,)])
def test_lists_of_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"\(L, 4\) per image"):
        ROIAlign(3, 0.25, 2)(torch.rand(1, 2, 8, 8), [torch.rand(shape)])


def test_traces_and_exports():
    feature, boxes = inputs()
    module = ROIAlign((3, 3), 0.25, 2)
    expected = module(feature, boxes[:5])
    traced = torch.jit.trace(module, (feature, boxes))
    torch.testing.assert_close(traced(feature, boxes[:5]), expected)
    count = torch.export.Dim("count", min=2)
    program = torch.export.export(
        module, (feature, boxes), dynamic_shapes=({}, {0: count}), strict=False
    )
    torch.testing.assert_close(program.module()(feature, boxes[:5]), expected)
