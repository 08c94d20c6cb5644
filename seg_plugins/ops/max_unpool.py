"""Max pooling with compact indices, and the unpooling that reads them (SegNet).

torch's ``max_pool2d(return_indices=True)`` keeps an int64 pixel number per window; here one byte
says where in its window the maximum lies: *codes*, (N, C, h, w) uint8, row * kernel + column. That
suffices because window (i, j) begins at pixel (i * stride, j * stride). Both functions are
differentiable, any number of times, and keep nothing but the codes for the backward pass.

On the CPU the compiled operators run where they are built; elsewhere the same results come from
torch's own, with int64 indices that live only during the call.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._extension import load_extension


def max_pool_indexed(
    x: Tensor, kernel: int = 2, stride: int | None = None
) -> tuple[Tensor, Tensor]:
    """Max pooling without padding that rounds up: border windows are cut, no pixel is lost.

    Args:
        x: (N, C, H, W), floating point.
        kernel: side of the windows, 1 to 16.
        stride: step between windows; default ``kernel``. A smaller one lets windows overlap.

    Returns:
        values: (N, C, h, w), as ``F.max_pool2d(x, kernel, stride, ceil_mode=True)``.
        codes: (N, C, h, w) uint8.
    """
    if torch.jit.is_tracing():  # which cannot follow an autograd function given traced sizes
        return _pool(x, kernel, stride or kernel)
    return _MaxPool.apply(x, kernel, stride or kernel)


def max_unpool_indexed(
    x: Tensor,
    codes: Tensor,
    output_size: tuple[int, int],
    kernel: int = 2,
    stride: int | None = None,
) -> Tensor:
    """Put each value where the maximum of its window was; all other pixels are 0.

    Equal to ``F.max_unpool2d`` with the indices that the codes stand for. Where windows overlap
    and two remember one pixel, the last in reading order wins; both get the pixel's gradient.

    Args:
        x: (N, C, h, w).
        codes: (N, C, h, w) uint8, from :func:`max_pool_indexed` with the same kernel and stride.
        output_size: (H, W) of the map that was pooled.
        kernel: side of the windows.
        stride: step between windows; default ``kernel``.

    Returns:
        (N, C, H, W).

    Raises:
        ValueError: shapes or types that do not belong together.
        IndexError: a code that points outside ``output_size``.
    """
    if codes.dtype != torch.uint8 or codes.shape != x.shape:
        raise ValueError(
            f"codes must be uint8 of x's shape {tuple(x.shape)}, got {codes.dtype} "
            f"{tuple(codes.shape)}"
        )
    if torch.jit.is_tracing():
        size = (output_size[0], output_size[1])
        return _unpool(x, codes, size, kernel, stride or kernel, add=False)
    return _Unpool.apply(x, codes, tuple(output_size), kernel, stride or kernel, False)


class IndexedMaxPool2d(nn.Module):
    """:func:`max_pool_indexed` as a layer."""

    def __init__(self, kernel: int = 2, stride: int | None = None) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride or kernel

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) to values and codes, (N, C, h, w) each."""
        return max_pool_indexed(x, self.kernel, self.stride)


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: int, stride: int) -> tuple[Tensor, Tensor]:
        values, codes = _pool(x, kernel, stride)
        ctx.save_for_backward(codes)
        ctx.mark_non_differentiable(codes)
        ctx.window, ctx.size = (kernel, stride), tuple(x.shape[-2:])
        return values, codes

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor, None, None]:
        return _Unpool.apply(grad, ctx.saved_tensors[0], ctx.size, *ctx.window, True), None, None


class _Unpool(torch.autograd.Function):
    """The gradient of pooling too (`add`), so that its backward passes are differentiable."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        codes: Tensor,
        size: tuple[int, int],
        kernel: int,
        stride: int,
        add: bool,
    ) -> Tensor:
        ctx.save_for_backward(codes)
        ctx.window, ctx.size = (kernel, stride), size
        return _unpool(x, codes, size, kernel, stride, add=add)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        found = _Gather.apply(grad, ctx.saved_tensors[0], ctx.size, *ctx.window)
        return found, None, None, None, None, None


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, full: Tensor, codes: Tensor, size: tuple[int, int], kernel: int, stride: int
    ) -> Tensor:
        ctx.save_for_backward(codes)
        ctx.window, ctx.size = (kernel, stride), size
        return _gather(full, codes, kernel, stride)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        back = _Unpool.apply(grad, ctx.saved_tensors[0], ctx.size, *ctx.window, True)
        return back, None, None, None, None


def _compiled(x: Tensor) -> bool:
    # Exported graphs hold torch's operators only, so that other runtimes can run them.
    exporting = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return x.device.type == "cpu" and not exporting and load_extension().loaded


def _pool(x: Tensor, kernel: int, stride: int) -> tuple[Tensor, Tensor]:
    if _compiled(x):
        return torch.ops.seg_plugins.max_pool_codes(x, kernel, stride)
    values, index = F.max_pool2d(x, kernel, stride, ceil_mode=True, return_indices=True)
    rows, columns = _window_origins(index, stride)
    width = x.shape[-1]
    code = (index // width - rows) * kernel + (index % width - columns)
    return values, code.to(torch.uint8)


def _unpool(
    x: Tensor, codes: Tensor, size: tuple[int, int], kernel: int, stride: int, *, add: bool
) -> Tensor:
    if _compiled(x):
        return torch.ops.seg_plugins.max_unpool_codes(x, codes, kernel, stride, list(size), add)
    index = _pixels(codes, size, kernel, stride).flatten(2)
    out, values = x.new_zeros(*x.shape[:2], size[0] * size[1]), x.flatten(2)
    if add:
        out = out.scatter_add(2, index, values)
    elif kernel <= stride:
        out = out.scatter(2, index, values)
    else:  # on a GPU any of several windows of one pixel could be the last to write
        place = torch.arange(index.shape[2], device=x.device).expand_as(index)
        last = torch.full_like(out, -1, dtype=torch.int64).scatter_reduce(2, index, place, "amax")
        values = torch.where(last.gather(2, index) == place, values, 0.0)
        out = out.scatter_add(2, index, values)
    return out.unflatten(2, size)


def _gather(full: Tensor, codes: Tensor, kernel: int, stride: int) -> Tensor:
    if _compiled(full):
        return torch.ops.seg_plugins.gather_codes(full, codes, kernel, stride)
    size = (full.shape[-2], full.shape[-1])
    index = _pixels(codes, size, kernel, stride).flatten(2)
    return full.flatten(2).gather(2, index).view(codes.shape)


def _window_origins(like: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    rows = torch.arange(like.shape[-2], device=like.device)[:, None] * stride
    return rows, torch.arange(like.shape[-1], device=like.device) * stride


def _pixels(codes: Tensor, size: tuple[int, int], kernel: int, stride: int) -> Tensor:
    """int64 pixel numbers, as ``F.max_unpool2d`` takes them."""
    rows, columns = _window_origins(codes, stride)
    code = codes.long()
    return (rows + code // kernel) * size[1] + columns + code % kernel


def _register_fakes() -> None:
    """Shapes without data, for ``torch.library.opcheck`` and tracing."""

    def windows(size: int, kernel: int, stride: int) -> int:
        count = -(-max(size - kernel, 0) // stride) + 1
        return count - 1 if (count - 1) * stride >= size else count

    @torch.library.register_fake("seg_plugins::max_pool_codes")
    def _(x: Tensor, kernel: int, stride: int) -> tuple[Tensor, Tensor]:
        size = [windows(n, kernel, stride) for n in x.shape[-2:]]
        values = x.new_empty([*x.shape[:2], *size])
        return values, torch.empty_like(values, dtype=torch.uint8)

    @torch.library.register_fake("seg_plugins::max_unpool_codes")
    def _(
        x: Tensor, codes: Tensor, kernel: int, stride: int, output_size: list[int], add: bool
    ) -> Tensor:
        return x.new_empty([*x.shape[:2], *output_size])

    @torch.library.register_fake("seg_plugins::gather_codes")
    def _(full: Tensor, codes: Tensor, kernel: int, stride: int) -> Tensor:
        return full.new_empty(codes.shape)


if load_extension().loaded:
    _register_fakes()
