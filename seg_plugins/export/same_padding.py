"""TensorFlow's padding of timm's ``tf_`` networks, as ONNX itself has it.

How much is padded depends on the size. Followed symbolically through every stride of a network the
sizes become expressions that take PyTorch's exporter hours. ONNX's convolution knows this padding
by name; as an operator of its own it has the short expression for the size of its result.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from timm.layers import Conv2dSame
from timm.layers.conv2d_same import conv2d_same
from torch import Tensor, nn


@torch.library.custom_op("seg_plugins::conv2d_same", mutates_args=())
def _conv2d_same(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: list[int], groups: int
) -> Tensor:
    return conv2d_same(x, weight, bias, tuple(stride), (0, 0), (1, 1), groups)


@_conv2d_same.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, stride: list[int], groups: int) -> Tensor:
    size = [(n + step - 1) // step for n, step in zip(x.shape[-2:], stride, strict=True)]
    return x.new_empty(x.shape[0], weight.shape[0], *size)


@contextlib.contextmanager
def by_name(network: nn.Module) -> Iterator[None]:
    """Let the convolutions of a network that pad as TensorFlow does be one operator each."""
    # onnxruntime takes no dilation with a padding by name.
    changed = [m for m in network.modules() if isinstance(m, Conv2dSame) and m.dilation == (1, 1)]
    for module in changed:
        module.forward = _forward_of(module)
    try:
        yield
    finally:
        for module in changed:
            del module.forward


def _forward_of(module: Conv2dSame) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        return torch.ops.seg_plugins.conv2d_same(
            x, module.weight, module.bias, list(module.stride), module.groups
        )

    return forward


def translations() -> dict[Callable, Callable]:
    """The ``custom_translation_table`` for ``torch.onnx.export``."""
    from onnxscript import opset18 as op

    def same(x: Any, weight: Any, bias: Any, stride: Any, groups: int) -> Any:
        values = (x, weight) if bias is None else (x, weight, bias)
        return op.Conv(*values, auto_pad="SAME_UPPER", group=groups, strides=list(stride))

    return {torch.ops.seg_plugins.conv2d_same.default: same}
