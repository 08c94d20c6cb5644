"""What ``torch.ops.seg_plugins.roi_align`` is to autograd, autocast and torch.compile.

PyTorch's stable ABI, through which the kernels are compiled, has no place for these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

# --------------------------------------------------------------------- shapes without data


def is_channels_last(feature: Tensor) -> bool:
    """The kernels' rule, cpu/roi_align.cpp: a map that lies both ways counts as contiguous."""
    return (
        feature.is_contiguous(memory_format=torch.channels_last) and not feature.is_contiguous()
    )


def _layout(channels_last: bool) -> torch.memory_format:
    return torch.channels_last if channels_last else torch.contiguous_format


def _fake_forward(
    features: Sequence[Tensor], boxes: Tensor, output_size: Sequence[int], *settings: Any
) -> tuple[Tensor, Tensor]:
    first = features[0]
    shape = (boxes.shape[0], first.shape[1], *output_size)
    layout = _layout(is_channels_last(first))
    output = torch.empty(shape, dtype=first.dtype, device=first.device, memory_format=layout)
    maximum = settings[3]
    winners = (
        torch.empty(shape, dtype=torch.int32, device=first.device, memory_format=layout)
        if maximum
        else torch.empty(0, dtype=torch.int32, device=first.device)
    )
    return output, winners


def _fake_backward(
    grad: Tensor,
    winners: Tensor,
    boxes: Tensor,
    batch_size: int,
    heights: Sequence[int],
    widths: Sequence[int],
    channels_last: bool,
    *settings: Any,
) -> list[Tensor]:
    return [
        torch.empty(
            (batch_size, grad.shape[1], height, width),
            dtype=grad.dtype,
            device=grad.device,
            memory_format=_layout(channels_last),
        )
        for height, width in zip(heights, widths, strict=True)
    ]


# --------------------------------------------------------------------------------- autograd


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    features, boxes, _, *settings = inputs
    ctx.save_for_backward(boxes, output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)
    ctx.shapes = (
        features[0].shape[0],
        [feature.shape[2] for feature in features],
        [feature.shape[3] for feature in features],
        is_channels_last(features[0]),
    )
    ctx.settings = settings


def _backward(ctx: Any, grad: Tensor | None, _: Any) -> tuple[Any, ...]:
    """Of each level; boxes get no gradient, as in every RoIAlign."""
    if grad is None:  # nothing depends on the output
        return [None for _ in ctx.shapes[1]], None, None, *(None for _ in ctx.settings)
    boxes, winners = ctx.saved_tensors
    gradients = torch.ops.seg_plugins.roi_align_backward(
        grad, winners, boxes, *ctx.shapes, *ctx.settings, torch.are_deterministic_algorithms_enabled()
    )
    return gradients, None, None, *(None for _ in ctx.settings)


def _refuse(ctx: Any, *grads: Any) -> None:
    raise RuntimeError("derivative for seg_plugins::roi_align_backward is not implemented")


# --------------------------------------------------------------------------------- autocast


def _autocast(device_type: str, key: torch._C.DispatchKey) -> Callable[..., tuple[Tensor, Tensor]]:
    """Features keep their low precision, boxes theirs; where levels disagree, all are cast.

    (torchvision's operator casts whole maps up to float32 instead.)
    """
    excluded = torch._C.DispatchKeySet(key)

    def run(features: list[Tensor], boxes: Tensor, *settings: Any) -> tuple[Tensor, Tensor]:
        with torch._C._ExcludeDispatchKeyGuard(excluded):
            if any(feature.dtype != features[0].dtype for feature in features):
                dtype = torch.get_autocast_dtype(device_type)
                features = [feature.to(dtype) for feature in features]
            return torch.ops.seg_plugins.roi_align(features, boxes, *settings)

    return run


_LIBRARY = torch.library.Library("seg_plugins", "IMPL")  # what it registers lives as long as it


def register() -> None:
    """Register all of it; to be called once, with the extension loaded."""
    forward, backward = "seg_plugins::roi_align", "seg_plugins::roi_align_backward"
    torch.library.register_fake(forward, _fake_forward)
    torch.library.register_fake(backward, _fake_backward)
    torch.library.register_autograd(forward, _backward, setup_context=_keep_for_backward)
    torch.library.register_autograd(backward, _refuse)
    keys = torch._C.DispatchKey
    _LIBRARY.impl("roi_align", _autocast("cpu", keys.AutocastCPU), "AutocastCPU")
    _LIBRARY.impl("roi_align", _autocast("cuda", keys.AutocastCUDA), "AutocastCUDA")
