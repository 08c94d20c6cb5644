"""The semantic systems, small and with random weights, that the tests of exports share."""

from __future__ import annotations

from seg_plugins import load_config

from detectron2.modeling import build_model
from torch import nn

HEAD = ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 3, "MODEL.DEVICE", "cpu")
TIMM = ("MODEL.BACKBONE.NAME", "build_timm_backbone", "MODEL.TIMM.NAME", "resnet18")
# Small, with the structure kept: every way of joining maps, even and odd sizes, both paddings.
SYSTEMS: dict[str, tuple[str, list]] = {
    "fcn": (
        "_base_/fcn.yaml",
        ["MODEL.VGG.DEPTH", 11, "MODEL.VGG.WIDTH", 16, "MODEL.VGG.FC_CHANNELS", 32],
    ),
    "unet": (
        "_base_/unet.yaml",
        [
            *("MODEL.UNET.DEPTH", 3, "MODEL.UNET.WIDTH", 16),
            *("MODEL.SEM_SEG_HEAD.IN_FEATURES", ["enc1", "enc2", "enc3"]),
        ],
    ),
    "unet_same": (
        "_base_/unet.yaml",
        [
            *("MODEL.UNET.DEPTH", 3, "MODEL.UNET.WIDTH", 16, "MODEL.UNET.UPSAMPLING", "bilinear"),
            *("MODEL.SEM_SEG_HEAD.IN_FEATURES", ["enc1", "enc2", "enc3"]),
            *("MODEL.UNET.PADDING", "same", "MODEL.UNET.NORM", "BN"),
        ],
    ),
    "segnet": ("_base_/segnet.yaml", ["MODEL.VGG.WIDTH", 16]),
    "segnet_basic": ("_base_/segnet_basic.yaml", ["MODEL.SEGNET.BASIC_WIDTH", 16]),
    "deeplabv3plus_timm": (
        "_base_/deeplabv3plus.yaml",
        [
            *(*TIMM, "MODEL.TIMM.OUT_FEATURES", ["res2", "res5"], "MODEL.TIMM.OUTPUT_STRIDE", 16),
            *("MODEL.SEM_SEG_HEAD.NORM", "BN", "MODEL.SEM_SEG_HEAD.ASPP_CHANNELS", 32),
        ],
    ),
    "deeplabv3plus_resnet": (
        "_base_/deeplabv3plus.yaml",
        [
            *("MODEL.RESNETS.DEPTH", 50, "MODEL.RESNETS.WIDTH_PER_GROUP", 16),
            *("MODEL.RESNETS.RES2_OUT_CHANNELS", 64, "MODEL.RESNETS.NORM", "BN"),
            *("MODEL.SEM_SEG_HEAD.NORM", "BN", "MODEL.SEM_SEG_HEAD.ASPP_CHANNELS", 32),
        ],
    ),
    "patch_classifier": (
        "_base_/patch_classifier.yaml",
        ["MODEL.PATCH.KERNELS", [4, 3], "MODEL.PATCH.CHANNELS", 16, "MODEL.PATCH.HIDDEN", 32],
    ),
}
SLIDE = [
    *("MODEL.INFERENCE.MODE", "slide", "MODEL.INFERENCE.WINDOW", [48, 64]),
    *("MODEL.INFERENCE.STRIDE", [24, 40]),
]
TILES = [
    *("MODEL.INFERENCE.MODE", "overlap_tile", "MODEL.INFERENCE.WINDOW", [48, 64]),
    *("MODEL.INFERENCE.CONTEXT", 16),
]


def system(name: str, *opts: object):
    """Configuration and model, with weights and statistics that no layer ignores."""
    config, own = SYSTEMS[name]
    cfg = load_config(config, [*HEAD, *own, *opts])
    model = build_model(cfg)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return cfg, model.eval()
