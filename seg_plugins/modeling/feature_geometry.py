"""Where the cells of feature maps lie in the image, so that maps can be joined without drift.

The *origin* of a map is the coordinate, in input pixels, of the centre of its first cell; the
centre of the first pixel is 0. A map of stride s whose cells tile the image has origin
(s - 1) / 2, which is what a plain ``ShapeSpec`` stands for. Convolutions without padding move the
origin into the image, extra padding moves it out.
"""

from __future__ import annotations

import torch
from detectron2.layers import ShapeSpec
from torch import Tensor

from ..config import ConfigError


def placed_shape(channels: int, stride: int, origin: float) -> ShapeSpec:
    """A ``ShapeSpec`` whose ``origin`` is not (stride - 1) / 2."""
    shape = ShapeSpec(channels=channels, stride=stride)
    shape.origin = origin
    return shape


def origin_of(shape: ShapeSpec) -> float:
    """Origin of a feature in input pixels."""
    return getattr(shape, "origin", (shape.stride - 1) / 2)


def transposed_origin(origin: float, stride: int, factor: int, kernel: int) -> float:
    """Origin after a transposed convolution without padding.

    Args:
        origin: of its input.
        stride: of its input, in pixels.
        factor: its own stride, by which the resolution grows.
        kernel: its kernel size.
    """
    return origin - (kernel - 1) / 2 * stride / factor


def cell_offset(first: float, second: float, stride: int) -> int:
    """Whole cells from the map with origin ``second`` to the one with origin ``first``.

    Raises:
        ConfigError: the grids do not coincide.
    """
    offset = (first - second) / stride
    if offset != round(offset):
        raise ConfigError(
            f"Two feature maps of stride {stride} lie {offset} cells apart and cannot be joined: "
            "use features of one backbone, with the padding it was designed for."
        )
    return round(offset)


def overlap(first: Tensor, second: Tensor, offset: int) -> tuple[Tensor, Tensor]:
    """The common part of two maps (N, C, H, W) and (N, C', H', W').

    Args:
        first: the map whose cell 0 lies over cell ``offset`` of the second, on both axes.
        second: the other map.
        offset: may be negative.
    """
    first = first[..., max(-offset, 0) :, max(-offset, 0) :]
    second = second[..., max(offset, 0) :, max(offset, 0) :]
    height = min(first.shape[-2], second.shape[-2])
    width = min(first.shape[-1], second.shape[-1])
    return first[..., :height, :width], second[..., :height, :width]


def mirror_pad(images: Tensor, before: int, size: tuple[int, int]) -> Tensor:
    """Extend (N, C, H, W) images by mirroring, the border pixel not repeated.

    Any width is possible: beyond the far border the image is mirrored again.

    Args:
        images: the images.
        before: pixels added at the top and left.
        size: (H', W') of the result; the rest is added at the bottom and right.
    """
    rows, columns = (
        mirrored_places(old, before, new).to(images.device)
        for old, new in zip(images.shape[-2:], size, strict=True)
    )
    return images[..., rows, :][..., columns]


def mirrored_places(size: int, before: int, length: int) -> Tensor:
    """(length,) int64: which of `size` pixels each pixel of a mirrored axis is."""
    period = max(2 * (size - 1), 1)
    index = torch.arange(-before, length - before).remainder(period)
    return torch.where(index < size, index, period - index)
