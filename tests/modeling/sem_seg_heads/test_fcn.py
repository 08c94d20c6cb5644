from seg_plugins.config import ConfigError
from seg_plugins.modeling.backbones.vgg import VGGBackbone
from seg_plugins.modeling.sem_seg_heads.fcn import BilinearUpsampling, SemSegFCNHead

import pytest
import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from torch import nn

FEATURES = {32: ["fc7"], 16: ["pool4", "fc7"], 8: ["pool3", "pool4", "fc7"]}


def build(stride: int, *, num_classes: int = 21, head: dict | None = None, **vgg):
    backbone = VGGBackbone(input_pad=100, out_features=FEATURES[stride], **vgg)
    return backbone, SemSegFCNHead(backbone.output_shape(), num_classes=num_classes, **(head or {}))


def small(stride: int, **head):
    backbone, head = build(stride, num_classes=3, width=4, fc_channels=16, head=head)
    for score in head.score.values():
        nn.init.normal_(score.weight, std=0.1)
    for layer in head.upscore.values():
        if layer.weight.requires_grad:
            nn.init.normal_(layer.weight, std=0.1)
    return backbone.eval(), head.eval()


@pytest.mark.parametrize(
    ("stride", "count"), [(32, 136_152_917), (16, 134_815_994), (8, 134_489_759)]
)
def test_number_of_parameters_of_the_voc_models(stride: int, count: int) -> None:
    with torch.device("meta"):
        parts = build(stride)
    assert sum(p.numel() for part in parts for p in part.parameters()) == count


def straight_line_fcn8(x: torch.Tensor, vgg: VGGBackbone, head: SemSegFCNHead) -> torch.Tensor:
    """FCN-8s as its network definition reads, with the literal pads and crops of the release."""
    height, width = x.shape[-2:]
    taps, pad = {}, 100
    stage = 1
    for layer in vgg.features:
        if isinstance(layer, nn.Conv2d):
            x, pad = F.relu(F.conv2d(x, layer.weight, layer.bias, padding=pad)), 1
        elif isinstance(layer, nn.MaxPool2d):
            x = taps[stage] = F.max_pool2d(x, 2, 2, ceil_mode=True)
            stage += 1
    x = F.relu(F.conv2d(x, vgg.fc.fc6.weight, vgg.fc.fc6.bias))
    x = F.relu(F.conv2d(x, vgg.fc.fc7.weight, vgg.fc.fc7.bias))
    score = {name: (layer.weight, layer.bias) for name, layer in head.score.items()}
    x = F.conv_transpose2d(F.conv2d(x, *score["fc7"]), head.upscore["fc7_x2"].weight, stride=2)
    skip = F.conv2d(taps[4], *score["pool4"])[..., 5 : 5 + x.shape[2], 5 : 5 + x.shape[3]]
    x = F.conv_transpose2d(x + skip, head.upscore["pool4_x2"].weight, stride=2)
    skip = F.conv2d(taps[3], *score["pool3"])[..., 9 : 9 + x.shape[2], 9 : 9 + x.shape[3]]
    x = F.conv_transpose2d(x + skip, head.upscore["pool3_x8"].weight, stride=8)
    return x[..., 31 : 31 + height, 31 : 31 + width]


@pytest.mark.parametrize("size", [(64, 96), (51, 37)])
def test_fcn8s_equals_a_straight_line_forward(size: tuple[int, int]) -> None:
    backbone, head = small(8)
    x = torch.randn(2, 3, *size)
    with torch.no_grad():
        expected = straight_line_fcn8(x, backbone, head)
        found = head(backbone(x))[0][..., : size[0], : size[1]]
    assert expected.shape == found.shape == (2, 3, *size)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("stride", "crop"), [(32, 19), (16, 27), (8, 31)])
def test_crops_are_those_of_the_release(stride: int, crop: int) -> None:
    assert small(stride)[1]._crop == crop


@pytest.mark.parametrize("stride", [32, 16, 8])
@pytest.mark.parametrize("size", [(1, 1), (33, 47), (224, 65)])
def test_scores_cover_any_size(stride: int, size: tuple[int, int]) -> None:
    backbone, head = small(stride)
    with torch.no_grad():
        logits = head(backbone(torch.randn(1, 3, *size)))[0]
    assert logits.shape[2] >= size[0]
    assert logits.shape[3] >= size[1]


@pytest.mark.parametrize("learnable", [True, False])
@pytest.mark.parametrize("factor", [2, 3, 8])
def test_upsampling_starts_bilinear(factor: int, learnable: bool) -> None:
    layer = BilinearUpsampling(2, factor, learnable)
    assert layer.weight.requires_grad is learnable
    x = torch.randn(1, 2, 6, 6)
    crop = (layer.kernel_size[0] - factor) // 2
    found = layer(x)[..., crop : crop + 6 * factor, crop : crop + 6 * factor]
    expected = F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
    inner = slice(factor, -factor)  # at the border interpolation repeats, convolution sees zeros
    torch.testing.assert_close(found[..., inner, inner], expected[..., inner, inner])


def test_staged_initialisation_takes_over_all_but_the_last_upsampling() -> None:
    for coarse, fine in ((32, 16), (16, 8)):
        (_, start), (_, target) = small(coarse), small(fine)
        result = target.load_state_dict(start.state_dict(), strict=False)
        assert all(key.startswith("upscore.") for key in result.unexpected_keys)
        assert torch.equal(target.score["fc7"].weight, start.score["fc7"].weight)


def test_skip_scales_multiply_the_features() -> None:
    backbone, head = small(8, skip_scales=[0.0, 0.0])
    for name in ("pool3", "pool4"):
        nn.init.zeros_(head.score[name].bias)
    x = torch.randn(1, 3, 40, 40)
    with torch.no_grad():
        features = backbone(x)
        before = head(features)[0]
        after = head(features | {"pool3": features["pool3"] * 9})[0]
    assert torch.equal(before, after)


def test_runs_on_a_residual_network() -> None:
    shapes = {f"res{i}": ShapeSpec(channels=8 * i, stride=2**i) for i in (3, 4, 5)}
    head = SemSegFCNHead(shapes, num_classes=4).eval()
    maps = {n: torch.randn(1, s.channels, -(-50 // s.stride), -(-70 // s.stride))
            for n, s in shapes.items()}  # fmt: skip
    logits = head(maps)[0]
    assert logits.shape[2] >= 50
    assert logits.shape[3] >= 70


def test_wrong_use_names_the_fix() -> None:
    shapes = VGGBackbone(width=1, fc_channels=2, out_features=["pool4", "fc7"]).output_shape()
    with pytest.raises(ConfigError, match="INPUT_PAD 100"):
        SemSegFCNHead({"fc7": shapes["fc7"]}, num_classes=2)
    with pytest.raises(ConfigError, match="smallest stride to the largest"):
        SemSegFCNHead(dict(reversed(shapes.items())), num_classes=2)
    with pytest.raises(ConfigError, match="SKIP_SCALES"):
        SemSegFCNHead(shapes, num_classes=2, skip_scales=[1.0, 1.0, 1.0])


@pytest.mark.parametrize(("finest", "least"), [("pool3", 69), ("pool2", 67)])
def test_the_least_padding_covers_every_size(finest: str, least: int) -> None:
    names = [n for n in ("pool2", "pool3", "pool4", "fc7") if n == "fc7" or n >= finest]
    backbone = VGGBackbone(
        depth=11, width=1, fc_channels=2, input_pad=least, out_features=names
    ).eval()
    head = SemSegFCNHead(backbone.output_shape(), num_classes=2).eval()
    for size in range(120, 160):
        assert head(backbone(torch.zeros(1, 3, 120, size)))[0].shape[3] >= size
