"""The instance branch of Panoptic-DeepLab (Cheng et al. 2020) on DeepLabv3+'s decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from torch import Tensor, nn

from ..instance_centers import CenterTargets
from ..loss_terms import Loss, Losses, Sum
from ..norms import norm_of
from .base import ScoreConv2d, cut_to_image, select_features
from .deeplab_v3_plus import SemSegDeepLabV3PlusHead


class InstanceCenterHead(SemSegDeepLabV3PlusHead):
    """A decoder of its own, then two small branches: a heatmap of centres and offsets to them."""

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        head_channels: int = 32,
        center_loss_weight: float = 200.0,
        offset_loss_weight: float = 0.01,
        decoder_channels: int = 128,
        norm: str = "BN",
        **decoder: Any,
    ) -> None:
        """Build decoder and branches.

        Args:
            input_shape: the features to use, from low level to high.
            head_channels: channels before each prediction.
            center_loss_weight: factor of the heatmap's squared error.
            offset_loss_weight: factor of the offsets' absolute error, in pixels.
            decoder_channels: channels of the decoder.
            norm: normalisation of all convolutions.
            **decoder: see :class:`~.deeplab_v3_plus.SemSegDeepLabV3PlusHead`.
        """
        super().__init__(
            input_shape, num_classes=3, decoder_channels=decoder_channels, norm=norm, **decoder
        )
        self.predictor = _Branches(decoder_channels, head_channels, norm)
        self.center_loss_weight = center_loss_weight
        self.offset_loss_weight = offset_loss_weight

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Arguments from ``MODEL.INS_EMBED_HEAD``."""
        head, semantic = cfg.MODEL.INS_EMBED_HEAD, cfg.MODEL.SEM_SEG_HEAD
        return {
            "input_shape": select_features(input_shape, head.IN_FEATURES, cls.__name__),
            "project_channels": head.PROJECT_CHANNELS,
            "aspp_channels": head.ASPP_CHANNELS,
            "aspp_dilations": head.ASPP_DILATIONS,
            "aspp_dropout": head.ASPP_DROPOUT,
            "decoder_channels": head.CONVS_DIM,
            "norm": head.NORM,
            "separable": semantic.USE_DEPTHWISE_SEPARABLE_CONV,
            "separable_kernel": semantic.SEPARABLE_DECODER_KERNEL,
            "head_channels": head.HEAD_CHANNELS,
            "center_loss_weight": head.CENTER_LOSS_WEIGHT,
            "offset_loss_weight": head.OFFSET_LOSS_WEIGHT,
        }

    def predict(self, features: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Heatmaps (N, 1, H, W) and offsets (N, 2, H, W) in pixels, at the input's stride."""
        found = self.upsample(self.layers(features))
        return found[:, :1], found[:, 1:] * self.common_stride

    def center_losses(
        self,
        features: dict[str, Tensor],
        targets: Sequence[CenterTargets],
        valid: Tensor,
    ) -> Losses:
        """Losses ``loss_center`` and ``loss_offset``, each a mean over the pixels that count.

        Args:
            features: of the backbone.
            targets: one for each image, of its own size.
            valid: (N, H, W) bool of the padded batch: pixels on which a centre may be learned.
        """
        heatmaps, offsets = self.predict(features)
        height, width = valid.shape[-2:]
        heatmaps, offsets = (cut_to_image(x, height, width) for x in (heatmaps, offsets))

        def padded(parts: list[Tensor]) -> Tensor:
            return torch.stack(
                [F.pad(p, (0, width - p.shape[-1], 0, height - p.shape[-2])) for p in parts]
            )

        inside = padded([t.inside for t in targets])
        wrong = (heatmaps[:, 0] - padded([t.heatmap for t in targets])) ** 2 * valid
        away = (offsets - padded([t.offsets for t in targets])).abs().sum(dim=1) * inside
        center = Loss.of(Sum(wrong.sum(), valid.sum()))
        offset = Loss.of(Sum(away.sum(), inside.sum()))
        return Losses(
            {
                "loss_center": center.times(self.center_loss_weight),
                "loss_offset": offset.times(self.offset_loss_weight),
            }
        )


class _Branches(nn.Module):
    """Centre and offset predictions, (N, 3, h, w) together."""

    def __init__(self, in_channels: int, channels: int, norm: str) -> None:
        super().__init__()
        self.center = _branch(in_channels, channels, 1, norm)
        self.offset = _branch(in_channels, channels, 2, norm)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.center(x), self.offset(x)], dim=1)


def _branch(in_channels: int, channels: int, outputs: int, norm: str) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in ((in_channels, in_channels), (in_channels, channels)):
        conv = Conv2d(
            before,
            after,
            3,
            padding=1,
            bias=not norm,
            norm=get_norm(norm_of(norm), after),
            activation=F.relu,
        )
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        layers.append(conv)
    predictor = ScoreConv2d(channels, outputs, 1)
    nn.init.normal_(predictor.weight, std=0.001)
    nn.init.zeros_(predictor.bias)
    return nn.Sequential(*layers, predictor)
