"""A feature pyramid (Lin et al., 2017) on any timm backbone."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import FPN
from detectron2.modeling.backbone.fpn import LastLevelMaxPool

from .timm import build_timm_backbone


def build_timm_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Build ``MODEL.FPN`` on ``MODEL.TIMM``: p2 to p5, and p6 by pooling.

    ``MODEL.FPN.IN_FEATURES`` names the features of ``MODEL.TIMM.OUT_FEATURES`` to take.
    """
    return FPN(
        bottom_up=build_timm_backbone(cfg, input_shape),
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )
