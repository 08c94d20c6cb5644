from __future__ import annotations

import copy

from seg_plugins import load_config
from seg_plugins.config import ConfigError
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


EXTENDED = [
    *("MODEL.DEVICE", "cpu", "MODEL.BACKBONE.NAME", "build_resnet_extended_fpn_backbone"),
    *("MODEL.FPN.OUT_CHANNELS", 32, "MODEL.WEIGHTS", ""),
]


def extended(*opts):
    """The pyramid of shapes/mask_rcnn_r18_fpn.yaml by the builder with more options."""
    cfg = load_config("shapes/mask_rcnn_r18_fpn.yaml", [*EXTENDED, *opts])
    torch.manual_seed(0)
    return cfg, build_backbone(cfg, ShapeSpec(channels=3)).eval()


def test_without_options_it_is_detectron2s_pyramid_bit_for_bit():
    cfg, backbone = extended()
    cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
    plain = build_backbone(cfg, ShapeSpec(channels=3)).eval()
    plain.load_state_dict(backbone.state_dict())
    x = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        found, expected = backbone(x), plain(x)
    assert list(expected) == ["p2", "p3", "p4", "p5", "p6"]
    assert all(torch.equal(found[name], feature) for name, feature in expected.items())
    assert backbone.size_divisibility == plain.size_divisibility == 32


P6P7 = ("MODEL.FPN.TOP_BLOCK", "p6p7", "MODEL.FPN.IN_FEATURES", ["res3", "res4", "res5"])


@pytest.mark.parametrize("size", [(128, 256), (64, 96)])
def test_p6_and_p7_are_convolutions_of_p5(size):
    _, backbone = extended(*P6P7)
    shapes = {n: s for n, s in backbone.output_shape().items() if n.startswith("p")}
    assert {n: s.stride for n, s in shapes.items()} == {f"p{i}": 2**i for i in range(3, 8)}
    assert {s.channels for s in shapes.values()} == {32}
    with torch.no_grad():
        found = backbone(torch.rand(1, 3, *size))
        p6 = backbone.top_block.p6(found["p5"])
        p7 = backbone.top_block.p7(p6.relu())
    assert torch.equal(found["p6"], p6)
    assert torch.equal(found["p7"], p7)
    for name, shape in shapes.items():
        assert found[name].shape[-2:] == tuple(-(-side // shape.stride) for side in size)


def test_levels_above_timms_features():
    cfg = load_config(
        "shapes/panoptic_segnet.yaml",
        [*TIMM, "MODEL.FPN.TOP_BLOCK", "p6p7", "MODEL.FPN.IN_FEATURES", ["res3", "res4", "res5"]],
    )
    backbone = build_backbone(cfg, ShapeSpec(channels=3)).eval()
    with torch.no_grad():
        found = backbone(torch.rand(1, 3, 128, 128))
    assert [found[f"p{i}"].shape[-1] for i in range(3, 8)] == [16, 8, 4, 2, 1]


def test_bilinear_steps_and_relus():
    _, backbone = extended("MODEL.FPN.UPSAMPLING", "bilinear", "MODEL.FPN.RELU", True)
    x = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        found, below = backbone(x), backbone.bottom_up(x)
        # By hand, from the coarsest: lateral convolution, the level above, output convolution.
        above = backbone.fpn_lateral5(below["res5"])
        levels = {"p5": backbone.fpn_output5(above).relu()}
        for i in (4, 3, 2):
            up = torch.nn.functional.interpolate(above, scale_factor=2, mode="bilinear")
            above = getattr(backbone, f"fpn_lateral{i}")(below[f"res{i}"]) + up
            levels[f"p{i}"] = getattr(backbone, f"fpn_output{i}")(above).relu()
        _, nearest = extended("MODEL.FPN.RELU", True)
        nearest.load_state_dict(backbone.state_dict())
        assert not torch.equal(nearest(x)["p2"], found["p2"])
    for name, level in levels.items():
        torch.testing.assert_close(found[name], level)
        assert (level >= 0).all()


@pytest.mark.parametrize(
    ("key", "value"), [("TOP_BLOCK", "p6"), ("UPSAMPLING", "cubic"), ("IN_FEATURES", ["res9"])]
)
def test_options_that_cannot_be(key, value):
    with pytest.raises(ConfigError, match=f"FPN.{key}"):
        extended(f"MODEL.FPN.{key}", value)
