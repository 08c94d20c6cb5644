from seg_plugins.config import ConfigError
from seg_plugins.modeling.backbones.vgg import VGGBackbone

import pytest
import torch
import torchvision
from torch import nn


@pytest.mark.parametrize("depth", [11, 13, 16, 19])
@pytest.mark.parametrize("norm", ["", "BN"])
def test_equals_torchvision_with_the_same_weights(depth: int, norm: str) -> None:
    with torch.device("meta"):
        peer = getattr(torchvision.models, f"vgg{depth}{'_bn' if norm else ''}")().features
        own = VGGBackbone(depth=depth, norm=norm)
    weights = {name: torch.randn(value.shape) * 0.02 if value.is_floating_point() else value
               for name, value in peer.state_dict().items()}  # fmt: skip
    weights = {n: v.abs() + 0.5 if "running_var" in n else v for n, v in weights.items()
               if "num_batches" not in n}  # fmt: skip
    for module in (peer, own.features):
        missing = module.to_empty(device="cpu").load_state_dict(weights, strict=False)
        assert not missing.unexpected_keys
        assert all("num_batches" in key for key in missing.missing_keys)
    x = torch.randn(1, 3, 64, 32)
    torch.testing.assert_close(own.eval()(x)["pool5"], peer.eval()(x), rtol=1e-4, atol=1e-6)


def test_poolings_round_up() -> None:
    model = VGGBackbone(width=2, out_features=["pool1", "pool3", "pool5"]).eval()
    maps = model(torch.randn(1, 3, 33, 70))
    assert [tuple(maps[name].shape) for name in maps] == [
        (1, 2, 17, 35),
        (1, 8, 5, 9),
        (1, 16, 2, 3),
    ]
    assert {name: shape.stride for name, shape in model.output_shape().items()} == {
        "pool1": 2, "pool3": 8, "pool5": 32,
    }  # fmt: skip


def test_fc7_of_fcn_lies_where_the_release_says() -> None:
    model = VGGBackbone(width=2, fc_channels=6, input_pad=100, out_features=["pool3", "fc7"])
    shapes = model.output_shape()
    assert (shapes["fc7"].channels, shapes["fc7"].stride) == (6, 32)
    assert shapes["fc7"].origin == 12.5
    assert shapes["pool3"].origin == -95.5


def test_origin_is_the_centre_of_the_receptive_field() -> None:
    # The gradient of one cell with respect to the image is symmetric about the cell's centre.
    model = VGGBackbone(depth=11, width=1, input_pad=100, out_features=["pool2"])
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.ones_(layer.weight)
    for i, layer in enumerate(model.features):
        if isinstance(layer, nn.MaxPool2d):
            model.features[i] = nn.AvgPool2d(2, ceil_mode=True)
    x = torch.rand(1, 3, 64, 64, requires_grad=True)
    cell = 30
    model(x)["pool2"][0, 0, cell, cell].backward()
    profile = x.grad.sum(dim=(0, 1, 2))
    centre = (profile * torch.arange(64)).sum() / profile.sum()
    shape = model.output_shape()["pool2"]
    assert centre.item() == pytest.approx(shape.origin + cell * shape.stride, abs=1e-3)


def test_pooling_indices_come_with_the_features() -> None:
    outputs = VGGBackbone(width=2, norm="BN", pooling_indices=True)(torch.randn(2, 3, 64, 64))
    assert outputs["pool3_indices"].shape == (2, 8, 8, 8)
    assert outputs["pool3_indices"].dtype == torch.uint8
    declared = VGGBackbone(width=2, pooling_indices=True).output_shape()
    assert set(declared) == set(outputs)
    assert (declared["pool3_indices"].channels, declared["pool3_indices"].stride) == (8, 8)


def test_frozen_stages() -> None:
    model = VGGBackbone(depth=11, width=2, norm="BN", freeze_at=2)
    frozen = [n for n, p in model.named_parameters() if not p.requires_grad]
    assert {name.split(".")[1] for name in frozen} == {"0", "4"}
    batch_norms = [m for m in model.features[:8] if isinstance(m, nn.BatchNorm2d)]
    assert not batch_norms


@pytest.mark.parametrize("arguments", [{"depth": 12}, {"out_features": ["res5"]}])
def test_unknown_depth_or_feature_lists_the_known(arguments) -> None:
    with pytest.raises(ConfigError, match=r"11, 13, 16, 19.*pool5, fc7"):
        VGGBackbone(**arguments)


def test_a_dilated_conv5_sees_the_same_at_every_eighth_pixel() -> None:
    # Once the maximum that pool4 takes is the same in both, every second cell of conv5 is too.
    plain = VGGBackbone(width=2, out_features=["conv5"]).eval()
    dense = VGGBackbone(width=2, out_features=["conv5"], dilate_conv5=True).eval()
    dense.load_state_dict(plain.state_dict())
    shapes = [model.output_shape()["conv5"] for model in (plain, dense)]
    assert [(shape.stride, shape.origin) for shape in shapes] == [(16, 7.5), (8, 3.5)]
    assert dense(torch.randn(1, 3, 61, 75))["conv5"].shape == (1, 16, 8, 10)
    for model in (plain, dense):
        pool = [i for i, layer in enumerate(model.features) if isinstance(layer, nn.MaxPool2d)][3]
        model.features[pool] = nn.AvgPool2d(1, stride=2) if model is plain else nn.Identity()
    x = torch.randn(1, 3, 96, 64)
    torch.testing.assert_close(dense(x)["conv5"][..., ::2, ::2], plain(x)["conv5"])


def test_conv5_comes_with_the_features_behind_it() -> None:
    maps = VGGBackbone(width=2, out_features=["pool4", "conv5", "pool5"])(torch.randn(1, 3, 64, 64))
    assert torch.equal(nn.functional.max_pool2d(maps["conv5"], 2), maps["pool5"])


@pytest.mark.parametrize("arguments", [{"out_features": ["pool5"]}, {"pooling_indices": True}])
def test_a_dilated_conv5_is_the_last_and_has_no_indices(arguments: dict) -> None:
    with pytest.raises(ConfigError, match="DILATE_CONV5"):
        VGGBackbone(width=2, dilate_conv5=True, **{"out_features": ["conv5"], **arguments})
