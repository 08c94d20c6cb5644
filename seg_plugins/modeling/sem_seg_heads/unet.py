"""The expanding path of U-Net, on its own encoder or on any other (Ronneberger et al. 2015)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from torch import Tensor, nn

from ...config import ConfigError
from ..backbones.unet import PADDINGS, double_conv
from ..feature_geometry import cell_offset, origin_of, overlap, transposed_origin
from .base import ScoreConv2d, SemSegHead, select_features

logger = logging.getLogger(__name__)


class UpConv(nn.Module):
    """Upsampling by an integer factor to ``out_channels`` channels."""

    def __init__(self, in_channels: int, out_channels: int, factor: int, mode: str) -> None:
        """Build it.

        Args:
            in_channels: input channels.
            out_channels: output channels.
            factor: 1 only changes the channels.
            mode: ``transposed``: kernel and stride are the factor; ``bilinear``: a 1x1
                convolution (before interpolation, which gives the same at a fraction of the cost).
        """
        super().__init__()
        self.factor = factor if mode == "bilinear" else 1
        if mode == "bilinear":
            self.conv: nn.Module = nn.Conv2d(in_channels, out_channels, 1)
        else:
            self.conv = nn.ConvTranspose2d(in_channels, out_channels, factor, stride=factor)
        # Each output sees one input cell, in both modes: the fan-in is the input channels.
        nn.init.normal_(self.conv.weight, std=(2 / in_channels) ** 0.5)
        nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) to (N, out_channels, h * factor, w * factor)."""
        x = self.conv(x)
        if self.factor > 1:
            x = F.interpolate(x, scale_factor=self.factor, mode="bilinear", align_corners=False)
        return x


class SemSegUNetHead(SemSegHead):
    """Per step: upsample, concatenate with the encoder's feature (cropped), convolve twice.

    Works on every backbone with features of falling stride; scores at the finest one's stride
    are upsampled bilinearly to the image.
    """

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        decoder_channels: Sequence[int] = (),
        padding: str = "same",
        upsampling: str = "transposed",
        norm: str = "",
        **head_arguments: Any,
    ) -> None:
        """Build the steps.

        Args:
            input_shape: features from fine to coarse.
            decoder_channels: channels of each step, from fine to coarse; default: those of the
                encoder's feature, as in the paper.
            padding: ``valid`` or ``same``, as the backbone's.
            upsampling: ``transposed`` or ``bilinear``: see :class:`UpConv`.
            norm: normalisation after each 3x3 convolution, or "".
            **head_arguments: see :class:`~.base.SemSegHead`.
        """
        *skips, deepest = input_shape
        strides = [shape.stride for shape in input_shape.values()]
        super().__init__(common_stride=strides[0], **head_arguments)
        channels = list(decoder_channels) or [input_shape[name].channels for name in skips]
        if not skips or strides != sorted(strides) or len(channels) != len(skips):
            raise ConfigError(
                "SemSegUNetHead takes two or more IN_FEATURES from the smallest stride to the "
                "largest, and as many MODEL.UNET.DECODER_CHANNELS as skips or none: got strides "
                f"{strides} and channels {list(decoder_channels)}"
            )
        if padding not in PADDINGS or upsampling not in ("transposed", "bilinear"):
            raise ConfigError(
                "MODEL.UNET: PADDING is 'valid' or 'same' and UPSAMPLING 'transposed' or "
                f"'bilinear', got '{padding}', '{upsampling}'"
            )
        self.in_features = list(input_shape)
        self.ups, self.convs = nn.ModuleList(), nn.ModuleList()
        self._offsets: list[int] = []
        previous, origin = input_shape[deepest].channels, origin_of(input_shape[deepest])
        widths = dict(zip(skips, channels, strict=True))
        for name, finer in pairwise(reversed(self.in_features)):
            skip, stride = input_shape[finer], input_shape[name].stride
            factor = stride // skip.stride
            self.ups.append(UpConv(previous, widths[finer], factor, upsampling))
            origin = transposed_origin(origin, stride, factor, factor)
            self._offsets.append(cell_offset(origin, origin_of(skip), skip.stride))
            origin = max(origin, origin_of(skip))
            width = widths[finer] + skip.channels
            self.convs.append(double_conv(width, widths[finer], PADDINGS[padding], norm))
            origin += 0 if PADDINGS[padding] else 2 * skip.stride
            previous = widths[finer]
        self.predictor = ScoreConv2d(previous, self.num_classes, 1)
        nn.init.normal_(self.predictor.weight, std=(2 / previous) ** 0.5)
        nn.init.zeros_(self.predictor.bias)
        # After bilinear upsampling the first score lies this far inside the image.
        self.border = cell_offset(origin, (strides[0] - 1) / 2, 1)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Arguments from ``MODEL.SEM_SEG_HEAD`` and ``MODEL.UNET``."""
        head, unet = cfg.MODEL.SEM_SEG_HEAD, cfg.MODEL.UNET
        if unet.PADDING == "valid" and cfg.MODEL.BACKBONE.NAME != "build_unet_backbone":
            logger.warning(
                "MODEL.UNET.PADDING valid on %s, which pads: images get a mirrored border for the "
                "decoder alone; 'same' needs none and is faster",
                cfg.MODEL.BACKBONE.NAME,
            )
        return {
            "input_shape": select_features(input_shape, head.IN_FEATURES, cls.__name__),
            "decoder_channels": unet.DECODER_CHANNELS,
            "padding": unet.PADDING,
            "upsampling": unet.UPSAMPLING,
            "norm": head.NORM,
            **cls.config_arguments(cfg),
        }

    def layers(self, features: dict[str, Tensor]) -> Tensor:
        """Scores (N, K, h, w) at the finest feature's stride."""
        *skips, deepest = self.in_features
        x = features[deepest]
        steps = zip(reversed(skips), self.ups, self.convs, self._offsets, strict=True)
        for name, up, conv, offset in steps:
            x, skip = overlap(up(x), features[name], offset)
            x = conv(torch.cat([skip, x], dim=1))
        return self.predictor(x)
