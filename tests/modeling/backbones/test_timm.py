from seg_plugins import load_config
from seg_plugins.config import ConfigError
from seg_plugins.modeling.backbones.timm import TimmBackbone, build_timm_backbone, feature_names

import pytest
import timm
import torch
from detectron2.layers import ShapeSpec
from torch import nn


@pytest.mark.parametrize(
    ("strides", "names"),
    [
        ([2, 4, 8, 16, 32], ["res1", "res2", "res3", "res4", "res5"]),
        ([2, 4, 8, 16, 16], ["res1", "res2", "res3", "res4", "res5"]),
        ([4, 8, 8, 8], ["res2", "res3", "res4", "res5"]),
        ([1, 2], ["res0", "res1"]),
        ([16, 16, 16], ["res4", "res5", "res6"]),
    ],
)
def test_features_are_named_by_undilated_stride(strides, names) -> None:
    assert feature_names(strides) == names


@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_declared_shapes_are_the_real_ones(output_stride: int) -> None:
    model = TimmBackbone(name="resnet18", output_stride=output_stride).eval()
    maps = model(torch.randn(1, 3, 64, 96))
    assert list(maps) == ["res2", "res3", "res4", "res5"]
    for name, shape in model.output_shape().items():
        assert maps[name].shape == (1, shape.channels, 64 // shape.stride, 96 // shape.stride)
    assert model.output_shape()["res5"].stride == output_stride == model.size_divisibility


@pytest.mark.parametrize("name", ["resnet18", "xception65"])
def test_equals_timm_with_the_same_weights(name: str) -> None:
    peer = timm.create_model(name, features_only=True, output_stride=16).eval()
    own = TimmBackbone(name=name, output_stride=16, out_features=["res2", "res5"]).eval()
    own.model.load_state_dict(peer.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = peer(x)
        torch.testing.assert_close(own(x), {"res2": expected[1], "res5": expected[4]})


def test_layers_after_the_last_feature_are_left_out() -> None:
    model = TimmBackbone(name="resnet18", out_features=["res2", "res3"])
    assert not [name for name, _ in model.named_parameters() if "layer3" in name]


def test_nhwc_models_give_nchw_features() -> None:
    model = TimmBackbone(name="swin_tiny_patch4_window7_224", out_features=["res2"]).eval()
    assert model(torch.randn(1, 3, 224, 224))["res2"].shape == (1, 96, 56, 56)


@pytest.mark.parametrize("channels", [1, 4])
def test_other_numbers_of_channels(channels: int) -> None:
    model = TimmBackbone(name="resnet18", in_channels=channels, out_features=["res2"])
    assert model(torch.randn(2, channels, 32, 32))["res2"].shape == (2, 64, 8, 8)


@pytest.mark.parametrize(
    ("name", "frozen", "later"),
    [
        ("resnet18", ("conv1", "bn1", "layer1"), "layer2"),
        ("efficientnet_b0", ("conv_stem", "bn1", "blocks.0", "blocks.1"), "blocks.2"),
        ("xception41", ("stem_", "blocks_0", "blocks_1.stack.act3"), "blocks_2"),
    ],
)
def test_frozen_stages(name: str, frozen: tuple[str, ...], later: str) -> None:
    model = TimmBackbone(name=name, freeze_at=2, out_features=["res2", "res3"]).model
    trainable = [key for key, p in model.named_parameters() if p.requires_grad]
    assert not [key for key in trainable if key.startswith(frozen)]
    assert [key for key in trainable if key.startswith(later)]
    before = {key: value.clone() for key, value in model.named_buffers()}
    model.train()(torch.randn(2, 3, 32, 32))
    moved = {key for key, value in model.named_buffers()
             if "running_mean" in key and not torch.equal(value, before[key])}  # fmt: skip
    assert [key for key in moved if key.startswith(later)]
    assert not [key for key in moved if key.startswith(frozen)]


@pytest.mark.parametrize("name", ["resnet18", "xception41"])
def test_group_norm_takes_the_place_of_batch_norm(name: str) -> None:
    model = TimmBackbone(name=name, norm="GN", out_features=["res2"])
    kinds = [type(module) for module in model.modules()]
    assert not [kind for kind in kinds if issubclass(kind, nn.BatchNorm2d)]
    assert [kind for kind in kinds if issubclass(kind, nn.GroupNorm)]
    batch = torch.randn(2, 3, 32, 32)
    alone, together = model(batch[:1])["res2"], model(batch)["res2"][:1]
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-4)


def test_frozen_batch_norm_everywhere() -> None:
    model = TimmBackbone(name="resnet18", norm="FrozenBN", out_features=["res2"])
    assert not [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet19"}, r"no model 'resnet19'.*resnet18"),
        ({"name": "resnet18", "out_features": ["p2"]}, r"\['p2'\].*res1, res2"),
        ({"name": "vgg11", "output_stride": 16}, "OUTPUT_STRIDE 16"),
        ({"name": "resnet18", "norm": "LN"}, "FrozenBN"),
    ],
)
def test_wrong_use_names_the_fix(arguments, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TimmBackbone(**arguments)


def test_missing_pretrained_weights_name_the_cache(monkeypatch) -> None:
    create = timm.create_model

    def offline(name, pretrained=False, **options):
        if pretrained:
            raise FileNotFoundError("cannot find the requested files in the local cache")
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ConfigError, match=r"HF_HOME.*PRETRAINED False"):
        TimmBackbone(name="resnet18", pretrained=True)


def test_a_trained_model_needs_no_pretrained_weights(monkeypatch) -> None:
    asked = []
    create = timm.create_model

    def spy(name, pretrained=False, **options):
        asked.append(pretrained)
        return create(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", spy)
    opts = ["MODEL.TIMM.PRETRAINED", True, "MODEL.WEIGHTS"]
    for weights, expected in (("", True), ("model_final.pth", False)):
        cfg = load_config("quickstart/deeplabv3plus_r18_shapes.yaml", [*opts, weights])
        build_timm_backbone(cfg, ShapeSpec(channels=3))
        assert any(asked) is expected
        asked.clear()
