"""DeepLabv3+ decoder: atrous spatial pyramid pooling and a light decoder (Chen et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import fvcore.nn.weight_init as weight_init
import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import ASPP, Conv2d, DepthwiseSeparableConv2d, ShapeSpec, get_norm
from torch import Tensor, nn

from ...config import ConfigError
from ..norms import norm_of
from .base import ScoreConv2d, SemSegHead, select_features


class SemSegDeepLabV3PlusHead(SemSegHead):
    """ASPP on the deepest feature, then one decoder step per low-level feature.

    The pooling branch of the ASPP averages the whole feature map (section 3.3 of DeepLabv3), so
    that any input size works. Parameters carry the names of ``DeepLabV3PlusHead`` in
    ``detectron2.projects.deeplab``: its checkpoints load as they are.
    """

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        project_channels: Sequence[int] = (48,),
        aspp_channels: int = 256,
        aspp_dilations: Sequence[int] = (6, 12, 18),
        aspp_dropout: float = 0.1,
        decoder_channels: int = 256,
        norm: str = "BN",
        separable: bool = False,
        separable_kernel: int = 3,
        **head_arguments: Any,
    ) -> None:
        """Build ASPP, decoder and score layer.

        Args:
            input_shape: the features to use, from low level to high; the last one feeds the ASPP.
            project_channels: channels each low-level feature is projected to by a 1x1
                convolution (48 in the paper, section 4.1).
            aspp_channels: channels of each ASPP branch and of its output.
            aspp_dilations: the three atrous rates: 6, 12, 18 at output stride 16, twice that at 8.
            aspp_dropout: dropout on the ASPP's output.
            decoder_channels: channels of the decoder's convolutions.
            norm: normalisation of all convolutions, as ``detectron2.layers.get_norm`` names it;
                ``GN`` has 16 groups for the 48 projected channels: see :func:`~..norms.norm_of`.
            separable: depthwise separable convolutions in ASPP and decoder.
            separable_kernel: 3: two separable 3x3 per decoder step, as in the paper; 5: one 5x5,
                as in Detectron2's project.
            **head_arguments: see :class:`SemSegHead`.
        """
        strides = [shape.stride for shape in input_shape.values()]
        super().__init__(common_stride=strides[0], **head_arguments)
        *low_level, deepest = input_shape
        if not low_level or len(project_channels) != len(low_level):
            raise ConfigError(
                "SemSegDeepLabV3PlusHead takes at least one low-level feature and one deep "
                f"feature, and one MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS per low-level feature: got "
                f"features {list(input_shape)} and channels {list(project_channels)}"
            )
        if strides != sorted(strides):
            raise ConfigError(
                "MODEL.SEM_SEG_HEAD.IN_FEATURES must go from the smallest stride to the largest, "
                f"got {dict(zip(input_shape, strides, strict=True))}"
            )
        if separable_kernel not in (3, 5):
            raise ConfigError(
                "MODEL.SEM_SEG_HEAD.SEPARABLE_DECODER_KERNEL must be 3 or 5, got "
                f"{separable_kernel}"
            )
        self.in_features = list(input_shape)
        self.norm = norm_of(norm)
        self.separable, self.separable_kernel = separable, separable_kernel

        self.decoder = nn.ModuleDict()
        previous = aspp_channels
        for name, channels in reversed(list(zip(low_level, project_channels, strict=True))):
            project = self._conv(input_shape[name].channels, channels, 1)
            fuse = self._fuse(previous + channels, decoder_channels)
            self.decoder[name] = nn.ModuleDict({"project_conv": project, "fuse_conv": fuse})
            previous = decoder_channels
        aspp = ASPP(
            input_shape[deepest].channels,
            aspp_channels,
            list(aspp_dilations),
            norm=self.norm,
            activation=F.relu,
            dropout=aspp_dropout,
            use_depthwise_separable_conv=separable,
        )
        self.decoder[deepest] = nn.ModuleDict({"project_conv": aspp})
        self.predictor = ScoreConv2d(decoder_channels, self.num_classes, 1)
        # Not Detectron2's std=0.001: from there the rows of rare classes stay alike for hundreds of
        # iterations, and nothing is predicted as them (tests/modeling/sem_seg_heads).
        nn.init.kaiming_normal_(self.predictor.weight, nonlinearity="relu")
        nn.init.zeros_(self.predictor.bias)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Arguments from ``MODEL.SEM_SEG_HEAD``."""
        head = cfg.MODEL.SEM_SEG_HEAD
        return {
            "input_shape": select_features(input_shape, head.IN_FEATURES, cls.__name__),
            "project_channels": head.PROJECT_CHANNELS,
            "aspp_channels": head.ASPP_CHANNELS,
            "aspp_dilations": head.ASPP_DILATIONS,
            "aspp_dropout": head.ASPP_DROPOUT,
            "decoder_channels": head.CONVS_DIM,
            "norm": head.NORM,
            "separable": head.USE_DEPTHWISE_SEPARABLE_CONV,
            "separable_kernel": head.SEPARABLE_DECODER_KERNEL,
            **cls.config_arguments(cfg),
        }

    def _conv(self, in_channels: int, out_channels: int, kernel_size: int) -> Conv2d:
        conv = Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            padding=kernel_size // 2,
            bias=not self.norm,
            norm=get_norm(self.norm, out_channels),
            activation=F.relu,
        )
        weight_init.c2_xavier_fill(conv)
        return conv

    def _separable(self, in_channels: int, out_channels: int) -> DepthwiseSeparableConv2d:
        kernel = self.separable_kernel
        return DepthwiseSeparableConv2d(
            in_channels,
            out_channels,
            kernel_size=kernel,
            padding=kernel // 2,
            norm1=self.norm,
            activation1=F.relu,
            norm2=self.norm,
            activation2=F.relu,
        )

    def _fuse(self, in_channels: int, out_channels: int) -> nn.Module:
        if not self.separable:
            return nn.Sequential(
                self._conv(in_channels, out_channels, 3), self._conv(out_channels, out_channels, 3)
            )
        if self.separable_kernel == 5:
            return self._separable(in_channels, out_channels)
        return nn.Sequential(
            self._separable(in_channels, out_channels), self._separable(out_channels, out_channels)
        )

    def layers(self, features: dict[str, Tensor]) -> Tensor:
        """Scores (N, K, h, w) at the stride of the first low-level feature."""
        return self.predictor(self.decode(features))

    def decode(self, features: dict[str, Tensor]) -> Tensor:
        """What the score layer sees: (N, decoder_channels, h, w)."""
        *low_level, deepest = self.in_features
        x = self.decoder[deepest]["project_conv"](features[deepest])
        for name in reversed(low_level):
            low = self.decoder[name]["project_conv"](features[name])
            x = F.interpolate(x, size=low.shape[-2:], mode="bilinear", align_corners=False)
            x = self.decoder[name]["fuse_conv"](torch.cat([low, x], dim=1))
        return x
