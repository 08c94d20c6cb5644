from seg_plugins.config import ConfigError
from seg_plugins.modeling.sem_seg_heads.deeplab_v3_plus import SemSegDeepLabV3PlusHead

import pytest
import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from detectron2.projects.deeplab import DeepLabV3PlusHead

SHAPES = {"res2": ShapeSpec(channels=24, stride=4), "res5": ShapeSpec(channels=40, stride=16)}
RARE = 6  # classes of a ninth of an image's pixels, one in each


def features(height: int, width: int) -> dict[str, torch.Tensor]:
    return {
        name: torch.randn(2, shape.channels, -(-height // shape.stride), -(-width // shape.stride))
        for name, shape in SHAPES.items()
    }


def build(**arguments) -> SemSegDeepLabV3PlusHead:
    return SemSegDeepLabV3PlusHead(SHAPES, num_classes=5, **arguments)


@pytest.mark.parametrize("separable", [False, True])
def test_equals_detectron2_head_at_its_crop_size(separable: bool) -> None:
    torch.manual_seed(0)
    peer = DeepLabV3PlusHead(
        SHAPES,
        project_channels=[48],
        aspp_dilations=[6, 12, 18],
        aspp_dropout=0.1,
        decoder_channels=[256, 256],
        common_stride=4,
        norm="BN",
        train_size=(96, 128),
        num_classes=5,
        use_depthwise_separable_conv=separable,
    ).eval()
    torch.nn.init.normal_(peer.predictor.weight)  # its default is almost zero
    own = build(separable=separable, separable_kernel=5).eval()
    own.load_state_dict(peer.state_dict())
    inputs = features(96, 128)
    with torch.no_grad():
        expected, found = peer(inputs)[0], own(inputs)[0]
    assert expected.abs().mean() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(64, 64), (97, 131), (16, 200)])
def test_pools_globally_at_any_size(size: tuple[int, int]) -> None:
    logits, _ = build().eval()(features(*size))
    assert logits.shape[0:2] == (2, 5)
    assert logits.shape[2] >= size[0]
    assert logits.shape[3] >= size[1]


def test_separable_decoder_of_the_paper_has_two_3x3_steps() -> None:
    head = build(separable=True)
    kernels = [m.kernel_size for m in head.decoder["res2"]["fuse_conv"].modules()
               if isinstance(m, torch.nn.Conv2d) and m.groups > 1]  # fmt: skip
    assert kernels == [(3, 3), (3, 3)]


def test_several_low_level_features() -> None:
    shapes = {"res2": SHAPES["res2"], "res3": ShapeSpec(channels=32, stride=8)} | SHAPES
    shapes = {name: shapes[name] for name in ("res2", "res3", "res5")}
    head = SemSegDeepLabV3PlusHead(shapes, num_classes=5, project_channels=[16, 32]).eval()
    maps = features(64, 64) | {"res3": torch.randn(2, 32, 8, 8)}
    assert head(maps)[0].shape == (2, 5, 64, 64)


def test_scores_stay_float32_under_autocast() -> None:
    head = build().eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert head(features(64, 64))[0].dtype == torch.float32


def test_needs_channels_for_each_low_level_feature() -> None:
    with pytest.raises(ConfigError, match="PROJECT_CHANNELS"):
        build(project_channels=[48, 48])


def test_needs_features_from_fine_to_coarse() -> None:
    with pytest.raises(ConfigError, match="smallest stride to the largest"):
        SemSegDeepLabV3PlusHead(dict(reversed(SHAPES.items())), num_classes=5)


@pytest.mark.parametrize(("std", "expected"), [(None, RARE), (0.001, 0)])
def test_rare_classes_are_learned_from_the_start(std: float | None, expected: int) -> None:
    # Detectron2's start of the score layer, almost zero, is the control.
    torch.manual_seed(0)
    shapes = SHAPES | {"res2": ShapeSpec(channels=8, stride=4)}
    head = SemSegDeepLabV3PlusHead(
        shapes, num_classes=1 + RARE, project_channels=[8], aspp_channels=32, decoder_channels=32,
        separable=True,
    )  # fmt: skip
    if std:
        torch.nn.init.normal_(head.predictor.weight, std=std)
    patterns = torch.randn(1 + RARE, shapes["res5"].channels)

    def scores(kinds: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.zeros(len(kinds), 6, 6, dtype=torch.long)
        labels[:, 2:4, 2:4] = kinds[:, None, None]
        deep = patterns[labels].permute(0, 3, 1, 2)
        deep = deep + 2 * torch.randn_like(deep)
        found = head.layers({"res2": torch.randn(len(kinds), 8, 24, 24), "res5": deep})
        return found, labels.repeat_interleave(4, 1).repeat_interleave(4, 2)

    optimizer = torch.optim.AdamW(head.parameters(), 2e-3)
    for _ in range(120):
        loss = F.cross_entropy(*scores(torch.randint(1, 1 + RARE, (8,))))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        found, labels = head.eval() and scores(torch.arange(1, 1 + RARE))
    right = found.argmax(dim=1)[:, 9:15, 9:15] == labels[:, 9:15, 9:15]
    assert (right.float().mean(dim=(1, 2)) > 0.5).sum() == expected
