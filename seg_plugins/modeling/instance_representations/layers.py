"""Layers and losses that several instance representations are made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.layers import get_norm
from torch import Tensor, nn

from ..norms import norm_of
from ..sem_seg_heads.base import full_precision


def tower(
    in_channels: int,
    channels: int,
    count: int,
    norm: str,
    *,
    kernel: int = 3,
    bias: bool | None = None,
) -> nn.Sequential:
    """`count` convolutions, each with a norm (``""``: none) and a ReLU.

    They have a bias if `bias` says so; None: where there is no norm.
    """
    layers: list[nn.Module] = []
    for i in range(count):
        given = in_channels if i == 0 else channels
        has_bias = not norm if bias is None else bias
        conv = nn.Conv2d(given, channels, kernel, padding=kernel // 2, bias=has_bias)
        nn.init.normal_(conv.weight, std=0.01)
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)
        layers.append(conv)
        if norm:
            layers.append(get_norm(norm_of(norm), channels))
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)


def prediction(
    in_channels: int, channels: int, *, kernel: int = 3, probability: float | None = None
) -> nn.Conv2d:
    """A convolution to predictions.

    Args:
        in_channels: channels given.
        channels: predictions.
        kernel: side of the kernel.
        probability: what its sigmoid gives at first (Lin et al. 2017, section 4.1); None: 0.5.
    """
    conv = nn.Conv2d(in_channels, channels, kernel, padding=kernel // 2)
    nn.init.normal_(conv.weight, std=0.01)
    bias = 0.0 if probability is None else -math.log((1 - probability) / probability)
    nn.init.constant_(conv.bias, bias)
    return conv


def with_coordinates(features: Tensor) -> Tensor:
    """Two channels more: x and y of each cell, from -1 to 1 over the map (CoordConv)."""
    count, _, height, width = features.shape
    x, y = _spread(width, features), _spread(height, features)
    plane = torch.stack([x.expand(height, width), y[:, None].expand(height, width)])
    return torch.cat([features, plane.expand(count, -1, -1, -1)], dim=1)


def _spread(count: int, like: Tensor) -> Tensor:
    """(count,) numbers from -1 to 1; of one it is -1."""
    if torch.onnx.is_in_onnx_export():  # linspace becomes a division by count - 1
        places = torch.arange(count, device=like.device, dtype=like.dtype)
        return places * (2 / places[-1:].clamp(min=1)) - 1
    return torch.linspace(-1, 1, count, device=like.device, dtype=like.dtype)


def resize(features: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear interpolation to (rows, columns), areas of the cells aligned."""
    return F.interpolate(features, size=size, mode="bilinear", align_corners=False)


def focal_sum(
    logits: Tensor, classes: Tensor, *, alpha: float = 0.25, gamma: float = 2.0
) -> Tensor:
    """The sum of the sigmoid focal loss (Lin et al. 2017) over all locations and classes.

    Args:
        logits: (L, K).
        classes: (L,) int64 from 0 to K; K is the background, and below 0 a location is left out.
        alpha: factor of positive terms; 1 - alpha that of negative ones.
        gamma: exponent of the modulation.
    """
    with full_precision(logits):
        logits = logits.float()
        target = F.one_hot(classes.clamp(min=0), logits.shape[1] + 1)[:, :-1].to(logits.dtype)
        plain = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        # 1 - probability of the truth, from the cross-entropy: exact where that is near 0.
        wrong = -torch.expm1(-plain)
        losses = plain * wrong**gamma * (target * alpha + (1 - target) * (1 - alpha))
        return torch.where(classes[:, None] >= 0, losses, 0.0).sum()


def focal_count(positives: Tensor, images: Sequence[Any]) -> Tensor:
    """What a focal sum is divided by: the positive locations, and one for each image.

    The references divide by the positives plus one, or by at least one. Then an image without
    objects, whose background teaches too, would have no say where a batch is taken in parts.
    """
    return positives + len(images)


def dice_losses(probabilities: Tensor, targets: Tensor) -> Tensor:
    """1 - 2 sum(p t) / (sum(p^2) + sum(t^2) + 0.002) of each mask (SOLO, equation 5).

    Args:
        probabilities: (N, ...).
        targets: (N, ...), 0 or 1.

    Returns:
        (N,) float32.
    """
    with full_precision(probabilities):
        p, t = probabilities.float().flatten(1), targets.float().flatten(1)
        shared = (p * t).sum(dim=1)
        return 1 - 2 * shared / ((p * p).sum(dim=1) + (t * t).sum(dim=1) + 0.002)
