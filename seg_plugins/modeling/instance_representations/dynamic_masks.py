"""Masks by small networks whose weights are predicted (CondInst, Tian et al. 2020, section 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..sem_seg_heads.base import full_precision
from .points import points_of


def network_size(layer_sizes: Sequence[tuple[int, int]]) -> int:
    """Weights and biases of layers of (output, input) channels."""
    return sum(rows * columns + rows for rows, columns in layer_sizes)


def dynamic_masks(
    shared: Tensor,
    codes: Tensor,
    xy: Tensor,
    units: Tensor,
    stride: float,
    layer_sizes: Sequence[tuple[int, int]],
) -> Tensor:
    """What small networks, each with a point's weights, say about each cell of shared maps.

    The input of a network are the ways x and y from a cell's centre to the point, and the maps.
    All are matrix products, which every exporter knows: the ways are linear in the place of the
    cell, so that the part of the point goes into the first layer's bias, and all networks read one
    input.

    Args:
        shared: (C, h, w) of an image.
        codes: (N, numbers) the weights of all layers, then the biases of all layers.
        xy: (N, 2) points in pixels.
        units: (N,) pixels that the way to the point is measured in.
        stride: pixels by cell.
        layer_sizes: output and input channels of each layer.

    Returns:
        (N, h, w) logits, float32.
    """
    height, width = shared.shape[-2:]
    with full_precision(shared):
        codes = codes.float()
        numbers = [rows * columns for rows, columns in layer_sizes] + [r for r, _ in layer_sizes]
        parts = codes.split(numbers, dim=1)
        weights = [p.reshape(-1, *n) for p, n in zip(parts, layer_sizes, strict=False)]
        biases = [part[:, :, None] for part in parts[len(layer_sizes) :]]
        ways = weights[0][:, :, :2] / units[:, None, None]
        cells = points_of([(height, width)], [1], shared.device).xy.T * stride
        inputs = torch.cat([cells, shared.float().flatten(1)])  # (2 + C, h * w)
        first = torch.cat([-ways, weights[0][:, :, 2:]], dim=2)
        x = first @ inputs + (biases[0] + ways @ xy[:, :, None])
        for weight, bias in zip(weights[1:], biases[1:], strict=True):
            x = torch.baddbmm(bias, weight, x.relu())
    return x.reshape(-1, height, width)
