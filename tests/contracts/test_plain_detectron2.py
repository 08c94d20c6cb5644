"""This package's parts in Detectron2's own default configuration, with add_seg_config alone."""

from __future__ import annotations

import itertools

import seg_plugins
from seg_plugins.config import ConfigError
from seg_plugins.modeling.norms import group_norm, norm_of

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import get_norm
from detectron2.modeling import (
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    SEM_SEG_HEADS_REGISTRY,
    build_model,
)
from detectron2.projects.deeplab import add_deeplab_config
from training_step import training_step

ORDERS = {
    "alone": [seg_plugins.add_seg_config],
    "before DeepLab's": [seg_plugins.add_seg_config, add_deeplab_config],
    "after DeepLab's": [add_deeplab_config, seg_plugins.add_seg_config],
}


def plain(*keys, order="alone"):
    cfg = get_cfg()
    for add in ORDERS[order]:
        add(cfg)
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", *keys])
    return cfg


def ours(registry):
    return [name for name, part in registry if part.__module__.startswith("seg_plugins")]


@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize("order", ORDERS)
def test_deeplab_trains_and_predicts_with_its_defaults(order, separable):
    cfg = plain(
        *("MODEL.META_ARCHITECTURE", "DeepLabV3Plus"),
        *("MODEL.SEM_SEG_HEAD.NAME", "SemSegDeepLabV3PlusHead"),
        *("MODEL.SEM_SEG_HEAD.IN_FEATURES", ["res2", "res5"]),
        *("MODEL.RESNETS.OUT_FEATURES", ["res2", "res5"]),
        *("MODEL.SEM_SEG_HEAD.USE_DEPTHWISE_SEPARABLE_CONV", separable),
        *("MODEL.RESNETS.WIDTH_PER_GROUP", 8, "MODEL.RESNETS.RES2_OUT_CHANNELS", 32),
        order=order,
    )
    assert (cfg.MODEL.SEM_SEG_HEAD.NORM, cfg.MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS) == ("GN", [48])
    model = build_model(cfg)
    norm = model.sem_seg_head.decoder["res2"]["project_conv"].norm
    assert (norm.num_groups, norm.num_channels) == (16, 48)
    image = torch.randint(256, (3, 64, 96), dtype=torch.uint8)
    sample = {"image": image, "sem_seg": torch.randint(54, (64, 96))}
    assert training_step(model, [sample, sample]).isfinite()
    with torch.no_grad():
        (found,) = model.eval()([{"image": image, "height": 64, "width": 96}])
    assert found["sem_seg"].shape == (54, 64, 96)


@pytest.mark.parametrize("channels", [1, 3, 16, 48, 64, 256, 304])
def test_group_norm_is_detectron2s_where_that_can_be(channels):
    norm = get_norm(norm_of("GN"), channels)
    assert norm.num_groups == {1: 1, 3: 1, 16: 16, 48: 16, 304: 16}.get(channels, 32)
    assert {k: v.shape for k, v in norm.state_dict().items()} == {
        "weight": (channels,), "bias": (channels,)
    }  # fmt: skip
    assert norm_of("BN") == "BN"
    assert norm_of("GN") is group_norm


@pytest.mark.parametrize("head", ours(SEM_SEG_HEADS_REGISTRY))
@pytest.mark.parametrize("backbone", ["build_resnet_backbone", *ours(BACKBONE_REGISTRY)])
def test_a_head_on_a_backbone_builds_or_names_the_fix(head, backbone):
    names = ("MODEL.SEM_SEG_HEAD.NAME", head, "MODEL.BACKBONE.NAME", backbone)
    _builds_or_names_the_fix(plain(*names, "MODEL.META_ARCHITECTURE", "SemanticSegmentor"))


@pytest.mark.parametrize("system", ours(META_ARCH_REGISTRY))
def test_a_system_builds_or_names_the_fix(system):
    heads = ["SemSegFPNHead"] if "BottomUp" not in system else ours(SEM_SEG_HEADS_REGISTRY)
    backbones = ["build_resnet_backbone", "build_timm_fpn_backbone"]
    for head, backbone in itertools.product(heads, backbones):
        _builds_or_names_the_fix(
            plain(
                *("MODEL.META_ARCHITECTURE", system, "MODEL.SEM_SEG_HEAD.NAME", head),
                *("MODEL.BACKBONE.NAME", backbone),
            )
        )


def _builds_or_names_the_fix(cfg):
    cfg.MODEL.DEVICE = "meta"
    message = ""
    with torch.device("meta"):
        try:
            build_model(cfg)
        except ConfigError as error:
            message = str(error)
    assert not message or "MODEL." in message
