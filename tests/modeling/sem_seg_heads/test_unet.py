import logging

from seg_plugins.config import ConfigError, load_config
from seg_plugins.modeling.backbones.unet import UNetBackbone
from seg_plugins.modeling.sem_seg_heads.unet import SemSegUNetHead

import pytest
import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec


def build(*, padding: str = "valid", num_classes: int = 2, head: dict | None = None, **unet):
    backbone = UNetBackbone(padding=padding, **unet)
    head = {"padding": padding, "num_classes": num_classes, **(head or {})}
    return backbone.eval(), SemSegUNetHead(backbone.output_shape(), **head).eval()


def test_number_of_parameters_and_sizes_of_the_paper() -> None:
    with torch.device("meta"):
        backbone, head = build()
        logits = head(backbone(torch.zeros(1, 1, 572, 572)))[0]
    assert sum(p.numel() for part in (backbone, head) for p in part.parameters()) == 31_030_658
    assert logits.shape == (1, 2, 388, 388)
    assert head.border == (572 - 388) // 2


def test_the_paper_s_padding_on_another_encoder_is_told(caplog) -> None:
    """Both forms work; without padding each side of an image gets 28 pixels more (by hand)."""
    shapes = {f"res{i + 1}": ShapeSpec(channels=8, stride=2**i) for i in range(1, 5)}
    for padding, border in (("same", 0), ("valid", 2 * (8 + 4 + 2))):
        opts = ("MODEL.UNET.PADDING", padding, "MODEL.UNET.DECODER_CHANNELS", "[8, 8, 8]",
                "MODEL.SEM_SEG_HEAD.IN_FEATURES", str(list(shapes)))  # fmt: skip
        cfg = load_config("camvid/unet_lite0.yaml", opts)
        with caplog.at_level(logging.WARNING):
            head = SemSegUNetHead(cfg, shapes)
        assert (head.border, "'same' needs none" in caplog.text) == (border, border > 0)


def straight_line(x: torch.Tensor, backbone: UNetBackbone, head: SemSegUNetHead) -> torch.Tensor:
    """Figure 1 of the paper, with skips cropped about their centre."""
    skips = []
    for i, level in enumerate(backbone.levels):
        for conv in level:
            x = F.relu(F.conv2d(x, conv.weight, conv.bias))
        if i + 1 < len(backbone.levels):
            skips.append(x)
            x = F.max_pool2d(x, 2)
    for skip, up, level in zip(reversed(skips), head.ups, head.convs, strict=True):
        x = F.conv_transpose2d(x, up.conv.weight, up.conv.bias, stride=2)
        begin = (skip.shape[-1] - x.shape[-1]) // 2
        inner = slice(begin, begin + x.shape[-1])
        x = torch.cat([skip[..., inner, inner], x], dim=1)
        for conv in level:
            x = F.relu(F.conv2d(x, conv.weight, conv.bias))
    return F.conv2d(x, head.predictor.weight, head.predictor.bias)


@pytest.mark.parametrize("depth", [3, 5])
def test_equals_a_straight_line_forward(depth: int) -> None:
    backbone, head = build(depth=depth, width=4)
    x = torch.randn(1, 1, backbone.valid_size(200), backbone.valid_size(200))
    with torch.no_grad():
        found, expected = head(backbone(x))[0], straight_line(x, backbone, head)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_border_is_where_the_first_score_looks() -> None:
    # The gradient of the first score is centred on pixel (border, border).
    backbone, head = build(depth=3, width=2)
    for parameter in [*backbone.parameters(), *head.parameters()]:
        torch.nn.init.constant_(parameter, 0.1)
    x = torch.ones(1, 1, 76, 76, requires_grad=True)
    head(backbone(x))[0][0, 0, 0, 0].backward()
    seen = x.grad.sum(dim=(0, 1, 2)).nonzero().flatten()
    assert seen.min() <= head.border <= seen.max()
    assert abs((seen.min() + seen.max()).item() / 2 - head.border) <= 2  # pooling is not symmetric


@pytest.mark.parametrize("upsampling", ["transposed", "bilinear"])
@pytest.mark.parametrize("norm", ["", "BN"])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_same_padding_keeps_any_size(upsampling: str, norm: str, channels: int) -> None:
    head = {"upsampling": upsampling, "norm": norm}
    backbone, head = build(
        padding="same", depth=4, width=4, norm=norm, in_channels=channels, head=head
    )
    assert head.border == 0
    assert head(backbone(torch.randn(1, channels, 37, 50)))[0].shape == (1, 2, 37, 50)


@pytest.mark.parametrize(("depth", "sizes"), [(5, (188, 204, 572)), (2, (18, 20, 22))])
def test_valid_sizes(depth: int, sizes: tuple[int, int, int]) -> None:
    backbone, head = build(depth=depth, width=1)
    smallest, second, third = sizes
    assert [backbone.valid_size(n) for n in (1, smallest, smallest + 1, third)] == [
        smallest, smallest, second, third,
    ]  # fmt: skip
    assert min(head(backbone(torch.zeros(1, 1, smallest, third)))[0].shape) > 0
    step = second - smallest
    backbone.valid_size = lambda n: n
    smaller = torch.zeros(1, 1, smallest - step, smallest - step)
    with pytest.raises(RuntimeError):  # nothing would remain
        head(backbone(smaller))


def test_invalid_size_names_the_next_valid_one() -> None:
    with pytest.raises(ValueError, match=r"width 570.*572"):
        build(width=1)[0](torch.zeros(1, 1, 572, 570))


@pytest.mark.parametrize("strides", [(4, 8, 16, 32), (2, 4, 8, 8), (4, 16)])
def test_decoder_on_another_encoder(strides) -> None:
    shapes = {f"f{i}": ShapeSpec(channels=8 + i, stride=s) for i, s in enumerate(strides)}
    head = SemSegUNetHead(shapes, num_classes=3, decoder_channels=[6] * (len(strides) - 1)).eval()
    maps = {n: torch.randn(1, s.channels, -(-50 // s.stride), -(-70 // s.stride))
            for n, s in shapes.items()}  # fmt: skip
    logits = head(maps)[0]
    assert logits.shape[2] >= 50
    assert logits.shape[3] >= 70


def test_dropout_acts_at_the_end_of_the_contracting_path() -> None:
    backbone = UNetBackbone(depth=4, width=8, padding="same", dropout=0.5).train()
    x = torch.randn(1, 1, 32, 32)
    first, second = backbone(x), backbone(x)
    same = [torch.equal(first[name], second[name]) for name in first]
    assert same == [True, True, False, False]


def test_wrong_use_names_the_fix() -> None:
    shapes = UNetBackbone(width=1).output_shape()
    with pytest.raises(ConfigError, match="'valid' or 'same'"):
        UNetBackbone(padding="full")
    with pytest.raises(ConfigError, match="DECODER_CHANNELS"):
        SemSegUNetHead({"enc1": shapes["enc1"]}, num_classes=2)
    with pytest.raises(ConfigError, match="'bilinear'"):
        SemSegUNetHead(shapes, num_classes=2, upsampling="nearest")
