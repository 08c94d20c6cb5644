"""The systems of instance segmentation, small and with random weights that find something."""

from __future__ import annotations

from seg_plugins import load_config
from seg_plugins.testing.samples import instance_sample

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from torch import nn

# A configuration for each, and keys by which random weights find something.
FEW_REGIONS = [
    *("MODEL.RPN.POST_NMS_TOPK_TRAIN", 20, "MODEL.RPN.POST_NMS_TOPK_TEST", 20),
    *("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 8),
]
SYSTEMS: dict[str, tuple[str, list]] = {
    "MaskRCNNFPN": ("mask_rcnn_r18_fpn", FEW_REGIONS),
    "MaskRCNNC4": ("mask_rcnn_r18_c4", FEW_REGIONS),
    "SOLO": ("solo_r18", []),
    "SOLOv2": ("solo_v2_r18", []),
    "CondInst": ("cond_inst_r18", []),
    "PolarMask": ("polar_mask_r18", []),
    "YOLACT": ("yolact_r18", []),
    # All windows have a loss: where some are drawn, a batch in parts draws others.
    "InstanceFCN": (
        "instance_fcn_r18",
        ["MODEL.INSTANCE_FCN.NMS_PRE", 50, "MODEL.INSTANCE_FCN.WINDOWS_PER_IMAGE", 10_000],
    ),
    "AdaptIS": ("adaptis_r18", []),
}
ONE_STAGE = [name for name in SYSTEMS if not name.startswith("MaskRCNN")]
SIZE = (64, 96)


def config_of(name: str, *opts: object) -> CfgNode:
    """The configuration of a system."""
    config, more = SYSTEMS[name]
    common = ["MODEL.DEVICE", "cpu", "TEST.DETECTIONS_PER_IMAGE", 10]
    options = [*common, "INPUT.MASK_FORMAT", "bitmask", *more, *opts]
    return load_config(f"shapes/{config}.yaml", options)


def build(name: str, *opts: object) -> nn.Module:
    """A system with random weights that see something everywhere."""
    torch.manual_seed(0)
    model = build_model(config_of(name, *opts))
    for module in getattr(model, "representation", nn.Identity()).modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.5)
    # The statistics of a trained network, roughly: else maps grow from layer to layer.
    with torch.no_grad(), EventStorage():
        model.train()([sample(), sample()])
    return model


def sample(height: int = SIZE[0], width: int = SIZE[1], count: int = 3) -> dict:
    return instance_sample(height, width, 6, count=count)
