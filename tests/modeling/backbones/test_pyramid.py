from __future__ import annotations

import copy

from seg_plugins import load_config
from seg_plugins.modeling.backbones.pyramid import FeaturePyramid

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import FPN, build_backbone

VGG = ["MODEL.VGG.WIDTH", 16, "MODEL.FPN.OUT_CHANNELS", 32]
TIMM = [
    *("MODEL.BACKBONE.NAME", "build_timm_fpn_backbone", "MODEL.TIMM.NAME", "resnet18"),
    *("MODEL.FPN.IN_FEATURES", ["res2", "res3", "res4", "res5"]),
    *("MODEL.TIMM.OUT_FEATURES", ["res1", "res2", "res3", "res4", "res5"]),
]


def build(opts):
    cfg = load_config("shapes/panoptic_segnet.yaml", opts)
    return build_backbone(cfg, ShapeSpec(channels=3)).eval()


@pytest.mark.parametrize("opts", [VGG, TIMM], ids=["vgg", "timm"])
def test_hands_on_the_features_below_beside_detectron2s_pyramid(opts):
    backbone = build(opts)
    plain = FPN(
        backbone.bottom_up, backbone.in_features, 32 if opts is VGG else 128, "BN",
        top_block=backbone.top_block,
    ).eval()  # fmt: skip
    plain.load_state_dict(backbone.state_dict())
    x = torch.rand(2, 3, 64, 128)
    with torch.no_grad():
        found, pyramid, below = backbone(x), plain(x), backbone.bottom_up(x)
    assert set(found) == set(pyramid) | set(below) == set(backbone.output_shape())
    for name, feature in {**below, **pyramid}.items():
        assert torch.equal(found[name], feature), name
        shape = backbone.output_shape()[name]
        assert feature.shape[1] == shape.channels
        assert feature.shape[-2:] == (64 // shape.stride, 128 // shape.stride)


def test_pooling_indices_are_bytes():
    found = build(VGG)(torch.rand(1, 3, 32, 32))
    assert all(found[f"pool{i}_indices"].dtype == torch.uint8 for i in range(1, 6))


def test_keeps_nothing_between_images_and_copies():
    backbone = build(VGG)
    x = torch.rand(1, 3, 32, 32)
    twin = copy.deepcopy(backbone)
    before = str(vars(backbone))
    expected = backbone(x)
    assert str(vars(backbone)) == before
    assert isinstance(twin, FeaturePyramid)
    assert torch.equal(twin(x)["pool5"], expected["pool5"])
