"""The operator as a citizen of PyTorch: opcheck, compile, export, autocast, ONNX."""

from __future__ import annotations

from seg_plugins.ops import roi_align
from seg_plugins.ops._extension import load_extension

import pytest
import torch
from torch.autograd import forward_ad

pytestmark = [
    pytest.mark.usefixtures("device"),
    pytest.mark.skipif(not load_extension().loaded, reason=f"not built: {load_extension().reason}"),
]
SCALES = [0.5, 0.25]


def some_boxes():
    return torch.tensor([[0, 1.5, 2, 20, 17], [1, 3, 3, 60, 50], [1, 8, 0, 12, 9]])


def features(dtype=torch.float32, channels_last=True):
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return [
        torch.randn(2, 8, size, size).to(dtype).contiguous(memory_format=layout)
        for size in (32, 16)
    ]


@pytest.mark.parametrize("maximum", [False, True])
@pytest.mark.parametrize("channels_last", [True, False])
def test_opcheck(maximum, channels_last):
    maps = [f.requires_grad_() for f in features(channels_last=channels_last)]
    arguments = (maps, some_boxes(), [3, 2], SCALES, 0, True, maximum, 20.0, 2, 1)
    torch.library.opcheck(torch.ops.seg_plugins.roi_align.default, arguments)


@pytest.mark.parametrize("channels_last", [True, False])
def test_opcheck_backward(channels_last):
    grad = torch.randn(3, 8, 3, 2)
    none = torch.empty(0, dtype=torch.int32)
    shapes = (2, [32, 16], [32, 16], channels_last)
    arguments = (grad, none, some_boxes(), *shapes, SCALES, 0, True, False, 20.0, 2, 1)
    torch.library.opcheck(torch.ops.seg_plugins.roi_align_backward.default, arguments)


def pool(maps, boxes):
    return roi_align([2 * f for f in maps], boxes, (3, 2), SCALES, canonical_box_size=20).sin()


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_as_one_graph_with_gradients(dynamic):
    maps = [f.requires_grad_() for f in features()]
    compiled = torch.compile(pool, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for boxes in (some_boxes(), some_boxes()[:2]):
        expected, output = pool(maps, boxes), compiled(maps, boxes)
        torch.testing.assert_close(output, expected)
        torch.testing.assert_close(
            torch.autograd.grad(output.sum(), maps), torch.autograd.grad(expected.sum(), maps)
        )


class Pool(torch.nn.Module):
    def forward(self, maps, boxes):
        return pool(maps, boxes)


def test_exports_with_a_dynamic_number_of_boxes():
    count = torch.export.Dim("count", min=2)
    program = torch.export.export(
        Pool(), (features(), some_boxes()), dynamic_shapes=([{}, {}], {0: count})
    )
    maps = features()
    torch.testing.assert_close(
        program.module()(maps, some_boxes()[:2]), pool(maps, some_boxes()[:2])
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_keeps_the_features_precision(device, dtype):
    maps = features(dtype)
    with torch.autocast(device, dtype=torch.bfloat16):
        output = roi_align(maps, some_boxes(), 3, SCALES, canonical_box_size=20)
    assert output.dtype == dtype
    assert some_boxes().dtype == torch.float32


def test_autocast_brings_mixed_levels_to_its_dtype(device):
    maps = [features()[0], features(torch.bfloat16)[1]]
    with torch.autocast(device, dtype=torch.bfloat16):
        assert roi_align(maps, some_boxes(), 3, SCALES).dtype == torch.bfloat16


def test_backward_is_not_differentiable_and_says_so():
    maps = [f.requires_grad_() for f in features()]
    output = roi_align(maps, some_boxes(), 3, SCALES)
    (gradient, _) = torch.autograd.grad(output.pow(2).sum(), maps, create_graph=True)
    with pytest.raises(RuntimeError):
        gradient.sum().backward()


@pytest.mark.parametrize("training", [False, True])
def test_a_derivative_in_forward_mode_is_refused(training):
    """It would be zero without a word."""
    features = torch.rand(1, 2, 6, 6, requires_grad=training)
    boxes = torch.tensor([[0.0, 1, 1, 4, 4]])

    def pooled(features):
        return roi_align([features], boxes, (2, 2), [1.0])

    with pytest.raises(RuntimeError, match="forward"):
        torch.func.jvp(pooled, (features,), (torch.ones_like(features),))
    with forward_ad.dual_level(), pytest.raises(RuntimeError, match="forward"):
        pooled(forward_ad.make_dual(features, torch.ones_like(features)))
    assert pooled(features).shape == (1, 2, 2, 2)
