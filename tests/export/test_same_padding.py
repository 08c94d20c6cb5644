"""Convolutions that pad as TensorFlow does: one node of ONNX each, and the same values."""

from __future__ import annotations

from seg_plugins.export import same_padding

import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn

SIZES = [(33, 41), (34, 40), (65, 66), (1, 3)]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [Conv2dSame(3, 8, 3, stride=2, bias=False), nn.ReLU(),
              Conv2dSame(8, 8, 5, stride=2, groups=8), Conv2dSame(8, 4, 3, stride=(2, 1)),
              Conv2dSame(4, 4, 3, stride=2, dilation=2)]  # fmt: skip
    return nn.Sequential(*layers).eval()


@pytest.mark.parametrize("size", SIZES)
def test_by_name_it_is_the_same_network(size):
    x, model = torch.randn(2, 3, *size), network()
    expected = model(x)
    with same_padding.by_name(model):
        assert torch.equal(model(x), expected)
        assert "forward" not in vars(model[-1])  # with a dilation it stays as it is
    assert not any("forward" in vars(module) for module in model)


def test_the_operator_keeps_its_contract():
    arguments = (torch.randn(2, 8, 9, 7), torch.randn(8, 1, 3, 3), torch.randn(8), [2, 1], 8)
    torch.library.opcheck(torch.ops.seg_plugins.conv2d_same.default, arguments)


def test_a_file_gives_what_the_network_gives(tmp_path):
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from seg_plugins.export.onnx_file import write_onnx

    model = network()[:-1]
    write_onnx(model, torch.randn(2, 3, 34, 41), tmp_path / "a.onnx", ["y"], 18)
    nodes = [node for node in onnx.load(tmp_path / "a.onnx").graph.node if node.op_type == "Conv"]
    assert [a.s for node in nodes for a in node.attribute if a.name == "auto_pad"] == [
        b"SAME_UPPER"
    ] * 3
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
    for size in SIZES:
        x = torch.randn(1, 3, *size)
        (found,) = session.run(None, {"images": x.numpy()})
        assert torch.allclose(torch.from_numpy(found), model(x), atol=1e-6)
