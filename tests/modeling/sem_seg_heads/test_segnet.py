import copy

from seg_plugins.config import ConfigError
from seg_plugins.modeling.backbones.segnet_basic import SegNetBasicBackbone
from seg_plugins.modeling.backbones.vgg import VGGBackbone
from seg_plugins.modeling.sem_seg_heads.segnet import SemSegSegNetHead

import pytest
import torch
import torch.nn.functional as F
from torch import nn

BASIC = {"convs": (1, 1, 1, 1), "kernel_size": 7, "relu": False, "extra_classifier": True}


def segnet(*, num_classes: int = 11, **vgg):
    backbone = VGGBackbone(norm="BN", pooling_indices=True, **vgg)
    return backbone, SemSegSegNetHead(backbone.output_shape(), num_classes=num_classes)


def basic(*, num_classes: int = 11, **arguments):
    backbone = SegNetBasicBackbone(**arguments)
    return backbone, SemSegSegNetHead(backbone.output_shape(), num_classes=num_classes, **BASIC)


@pytest.mark.parametrize(("build", "count"), [(segnet, 29_449_355), (basic, 1_416_587)])
def test_number_of_parameters(build, count: int) -> None:
    with torch.device("meta"):
        parts = build()
    assert sum(p.numel() for part in parts for p in part.parameters()) == count


def test_thirteen_convolutions_down_and_up() -> None:
    for part in segnet(width=1):
        assert sum(isinstance(module, nn.Conv2d) for module in part.modules()) == 13


def twin(x: torch.Tensor, backbone: VGGBackbone, head: SemSegSegNetHead) -> torch.Tensor:
    """The network with torch's own pooling and unpooling."""
    pooled: list[tuple[torch.Tensor, torch.Size]] = []
    for layer in backbone.features:
        if hasattr(layer, "kernel") and hasattr(layer, "stride"):  # the pooling
            size = x.shape[-2:]
            x, index = F.max_pool2d(x, 2, ceil_mode=True, return_indices=True)
            pooled.append((index, size))
        else:
            x = layer(x)
    for stage in head.stages:
        index, size = pooled.pop()
        x = stage(F.max_unpool2d(x, index, 2, output_size=size))
    return x


def test_equals_a_twin_with_torchs_unpooling() -> None:
    backbone, head = segnet(num_classes=3, width=4)
    x = torch.randn(2, 3, 64, 96)
    other = copy.deepcopy(backbone), copy.deepcopy(head)
    found, expected = head.upsample(head.layers(backbone(x))), twin(x, *other)
    torch.testing.assert_close(found, expected)
    for scores, parts in ((found, (backbone, head)), (expected, other)):
        scores.square().mean().backward()
        assert all(p.grad is not None for part in parts for p in part.parameters())
    for first, second in zip(head.parameters(), other[1].parameters(), strict=True):
        torch.testing.assert_close(first.grad, second.grad, rtol=1e-4, atol=1e-5)
    first, second = (part.features[0].weight.grad for part in (backbone, other[0]))
    torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-5)


def test_camvid_size_needs_no_padding() -> None:
    # 360 -> 180 -> 90 -> 45 -> 23 -> 12, and back to 45 and 23.
    backbone, head = segnet(num_classes=2, width=1)
    features = backbone.eval()(torch.randn(1, 3, 360, 480))
    assert features["pool5"].shape[-2:] == (12, 15)
    assert head.eval()(features)[0].shape == (1, 2, 360, 480)


@pytest.mark.parametrize("build", [segnet, basic])
def test_scores_cover_odd_sizes(build) -> None:
    backbone, head = build(num_classes=2, width=2)
    logits = head.eval()(backbone.eval()(torch.randn(1, 3, 37, 51)))[0]
    assert logits.shape == (1, 2, 38, 52)


def test_a_training_step_keeps_less_memory_than_int64_indices() -> None:
    def kept(run) -> int:
        storages: dict[int, int] = {}

        def pack(t: torch.Tensor) -> torch.Tensor:
            storages[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            scores = run()
        assert scores.requires_grad
        return sum(storages.values())

    backbone, head = segnet(num_classes=3, width=8)
    x = torch.randn(1, 3, 64, 64)
    own, torchs = kept(lambda: head.layers(backbone(x))), kept(lambda: twin(x, backbone, head))
    # torch keeps 8 bytes per pooled value instead of one, and each pooling's input until the
    # backward pass (the ReLU before it needs its own output anyway).
    pooled = 8 * 32**2 + 16 * 16**2 + 32 * 8**2 + 64 * 4**2 + 64 * 2**2
    assert torchs - own >= 7 * pooled


def test_a_backbone_without_indices_is_refused() -> None:
    shapes = VGGBackbone(width=1).output_shape()
    with pytest.raises(ConfigError, match=r"pool1_indices.*POOLING_INDICES True"):
        SemSegSegNetHead(shapes, num_classes=2)
