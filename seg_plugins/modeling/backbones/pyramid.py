"""Feature pyramids (Lin et al. 2017) that hand on the features below them as well."""

from __future__ import annotations

import math

import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import FPN, Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
from detectron2.modeling.backbone.resnet import build_resnet_backbone
from torch import Tensor, nn

from ...config import ConfigError
from .timm import build_timm_backbone
from .vgg import build_vgg_backbone

TOP_BLOCKS = ("pool", "p6p7", "p6p7_linear")
UPSAMPLING = ("nearest", "bilinear")


class LinearP6P7(LastLevelP6P7):
    """P6 and P7 by convolutions without the ReLU that RetinaNet and FCOS have between (YOLACT)."""

    def forward(self, c5: Tensor) -> list[Tensor]:
        """P5 to P6 and P7."""
        p6 = self.p6(c5)
        return [p6, self.p7(p6)]


class FeaturePyramid(FPN):
    """Detectron2's ``FPN`` beside the features of its ``bottom_up``, under their own names.

    So a semantic head finds what it was made for: SegNet the pooling indices, U-Net and
    DeepLabv3+ the encoder's features.

    Attributes:
        upsampling: ``nearest``, or ``bilinear``: from a level to the one below it.
        relu: put a ReLU behind every level that has a feature of the backbone; those above come
            from it.
    """

    upsampling = "nearest"
    relu = False

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, C, H, W) images to p2, p3, ... and the features of ``bottom_up``.

        FPN's own forward keeps those features to itself, and they must not wait on the module:
        several threads may call one model.
        """
        features = self.bottom_up(x)
        levels: list[Tensor] = []
        above: Tensor | None = None
        parts = zip(reversed(self.in_features), self.lateral_convs, self.output_convs, strict=True)
        for name, lateral, output in parts:
            level = lateral(features[name])
            if above is not None:
                level = level + self._finer(above)
                if self._fuse_type == "avg":
                    level = level / 2
            levels.insert(0, output(level).relu() if self.relu else output(level))
            above = level
        levels += self.top_block(levels[-1])
        return {**features, **dict(zip(self._out_features, levels, strict=True))}

    def _finer(self, level: Tensor) -> Tensor:
        if self.upsampling == "nearest":
            return F.interpolate(level, scale_factor=2.0, mode="nearest")
        return F.interpolate(level, scale_factor=2.0, mode="bilinear", align_corners=False)

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Shapes of both."""
        return {**self.bottom_up.output_shape(), **super().output_shape()}


def _pyramid(cfg: CfgNode, bottom_up: Backbone) -> FeaturePyramid:
    names, given = list(cfg.MODEL.FPN.IN_FEATURES), bottom_up.output_shape()
    if not names or not set(names) <= set(given):
        raise ConfigError(
            f"MODEL.FPN.IN_FEATURES {names} must name features of the backbone below the pyramid, "
            f"from fine to coarse: it gives {', '.join(given)}. MODEL.TIMM.OUT_FEATURES or "
            "MODEL.VGG.OUT_FEATURES choose others."
        )
    options = cfg.MODEL.FPN
    for key, known in (("TOP_BLOCK", TOP_BLOCKS), ("UPSAMPLING", UPSAMPLING)):
        if options[key] not in known:
            raise ConfigError(f"MODEL.FPN.{key} is {' or '.join(known)}, not {options[key]!r}")
    channels = options.OUT_CHANNELS
    level = f"p{round(math.log2(given[names[-1]].stride))}"
    pyramid = FeaturePyramid(
        bottom_up,
        in_features=names,
        out_channels=channels,
        norm=options.NORM,
        top_block=_top_block(options.TOP_BLOCK, channels, level),
        fuse_type=options.FUSE_TYPE,
    )
    pyramid.upsampling, pyramid.relu = options.UPSAMPLING, options.RELU
    return pyramid


def _top_block(name: str, channels: int, level: str) -> nn.Module:
    if name == "pool":
        return LastLevelMaxPool()
    return (LastLevelP6P7 if name == "p6p7" else LinearP6P7)(channels, channels, level)


def build_resnet_extended_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FeaturePyramid:
    """Detectron2's ``build_resnet_fpn_backbone`` with the options of ``MODEL.FPN`` that it lacks.

    ``TOP_BLOCK`` p6p7 gives levels by convolutions with stride 2 above the last (FCOS: from p5),
    p6p7_linear the same without a ReLU between them (YOLACT).
    """
    return _pyramid(cfg, build_resnet_backbone(cfg, input_shape))


def build_timm_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FeaturePyramid:
    """Build ``MODEL.FPN`` on ``MODEL.TIMM``: p2 to p5, p6 by pooling, and timm's features.

    ``MODEL.FPN.IN_FEATURES`` names the features of ``MODEL.TIMM.OUT_FEATURES`` to take.
    """
    return _pyramid(cfg, build_timm_backbone(cfg, input_shape))


def build_vgg_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FeaturePyramid:
    """Build ``MODEL.FPN`` on ``MODEL.VGG``: p2 to p5, p6 by pooling, and VGG's features.

    With ``MODEL.VGG.POOLING_INDICES`` SegNet's decoder runs beside the pyramid.
    ``MODEL.FPN.IN_FEATURES`` is [pool2, pool3, pool4, pool5] or the like.
    """
    return _pyramid(cfg, build_vgg_backbone(cfg, input_shape))
