"""What ``torch.ops.seg_plugins.roi_align`` is to autograd, autocast and torch.compile.

PyTorch's stable ABI, through which the kernels are compiled, has no place for these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

# --------------------------------------------------------------------- shapes without data


def is_channels_last(feature: Tensor) -> bool:
    """The kernels' rule, cpu/roi_align.cpp: a map that lies both ways counts as contiguous."""
    return feature.is_contiguous(memory_format=torch.channels_last) and not feature.is_contiguous()


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

# torch.library.register_autograd does the same for any operator, and takes several times as long
# for a list of tensors as a small RoIAlign does.


class _RoiAlign(torch.autograd.Function):
    """The levels come one by one: autograd looks for tensors no deeper."""

    @staticmethod
    def forward(
        ctx: Any,
        keys: torch._C.DispatchKeySet,
        boxes: Tensor,
        output_size: Sequence[int],
        settings: tuple[Any, ...],
        *features: Tensor,
    ) -> tuple[Tensor, Tensor]:
        output, winners = _forward(keys, list(features), boxes, output_size, *settings)
        ctx.save_for_backward(boxes, winners)
        ctx.mark_non_differentiable(winners)
        ctx.set_materialize_grads(False)
        sizes = [feature.shape for feature in features]
        heights, widths = [size[2] for size in sizes], [size[3] for size in sizes]
        ctx.maps = (sizes[0][0], heights, widths, is_channels_last(features[0]))
        ctx.settings = settings
        return output, winners

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, _: Any) -> tuple[Any, ...]:
        """Of each level; boxes get no gradient, as in every RoIAlign."""
        if grad is None:  # nothing depends on the output
            return (None,) * (4 + len(ctx.maps[1]))
        boxes, winners = ctx.saved_tensors
        fixed_order = torch.are_deterministic_algorithms_enabled()
        arguments = (grad, winners, boxes, *ctx.maps, *ctx.settings, fixed_order)
        operator = torch.ops.seg_plugins.roi_align_backward.default
        if torch.is_grad_enabled():  # somebody may differentiate again, which has to be refused
            return (None,) * 4 + tuple(operator(*arguments))
        with torch._C._AutoDispatchBelowAutograd():
            return (None,) * 4 + tuple(operator(*arguments))


def _forward(
    keys: torch._C.DispatchKeySet, features: list[Tensor], boxes: Tensor, *settings: Any
) -> tuple[Tensor, Tensor]:
    """The operator below autograd."""
    below = keys & torch._C._after_autograd_keyset
    with torch._C._AutoDispatchBelowAutograd():
        return torch.ops.seg_plugins.roi_align.default.redispatch(below, features, boxes, *settings)


def _autograd(
    keys: torch._C.DispatchKeySet,
    features: list[Tensor],
    boxes: Tensor,
    output_size: Sequence[int],
    *settings: Any,
) -> tuple[Tensor, Tensor]:
    if _has_tangent(features):
        raise RuntimeError("forward-mode derivative of seg_plugins::roi_align is not implemented")
    if torch.is_grad_enabled() and any(feature.requires_grad for feature in features):
        return _RoiAlign.apply(keys, boxes, output_size, settings, *features)
    return _forward(keys, features, boxes, output_size, *settings)


def _has_tangent(features: list[Tensor]) -> bool:
    """Whether somebody asks for a derivative in forward mode, which would be lost in silence."""
    return forward_ad._current_level >= 0 and any(
        forward_ad.unpack_dual(feature).tangent is not None for feature in features
    )


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
    torch.library.register_autograd(backward, _refuse)
    _LIBRARY.impl("roi_align", _autograd, "Autograd", with_keyset=True)
    keys = torch._C.DispatchKey
    _LIBRARY.impl("roi_align", _autocast("cpu", keys.AutocastCPU), "AutocastCPU")
    _LIBRARY.impl("roi_align", _autocast("cuda", keys.AutocastCUDA), "AutocastCUDA")
