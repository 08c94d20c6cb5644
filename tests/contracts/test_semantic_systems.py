"""What every semantic system keeps, whatever it is made of: one contract, thin subclasses.

The systems are small but keep their structure. Widths stay at 16 and more: bfloat16 1x1
convolutions to fewer channels write out of bounds on the CPU of PyTorch 2.14.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from seg_plugins import load_config
from seg_plugins.modeling.meta_arch.semantic import SemanticSystem

import pytest
import torch
import torch.nn.functional as F
from detectron2.modeling import build_model
from devices import DEVICES, host_never_waits
from torch import nn

IGNORE = 255


def sample(height: int, width: int, num_classes: int = 3) -> dict:
    labels = torch.randint(0, max(num_classes, 2), (height, width))
    labels[: height // 4] = IGNORE
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    return {"image": image, "sem_seg": labels}


class SemanticSystemContract:
    config: ClassVar[str]
    opts: ClassVar[list] = []
    device: str

    @pytest.fixture(params=DEVICES, autouse=True)
    def _device(self, request: pytest.FixtureRequest) -> Iterator[None]:
        """Models are there; samples lie on the CPU, as mappers give them."""
        self.device = request.param
        # Convolutions of float32 numbers on a GPU, too, not of their first ten bits.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield

    def build(self, num_classes: int = 3, *opts: object) -> SemanticSystem:
        common = ["MODEL.DEVICE", "cpu", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", num_classes]
        cfg = load_config(self.config, [*common, *self.opts, *opts])
        model = build_model(cfg)
        for module in model.modules():
            # Zero scores and zero last norms of residual blocks let no gradient below them.
            if isinstance(module, nn.Conv2d) and module.out_channels == num_classes:
                nn.init.normal_(module.weight, std=0.1)
            if isinstance(module, nn.BatchNorm2d):
                nn.init.ones_(module.weight)
        return model.to(self.device)

    def assert_near(self, found: torch.Tensor, expected: torch.Tensor) -> None:
        """On the CPU everywhere; kernels of a GPU move some of the places SegNet remembers."""
        if self.device == "cpu":
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
        near = torch.isclose(found.cpu(), expected.cpu(), rtol=1e-3, atol=1e-4).float().mean()
        assert near > (0.9 if "segnet" in self.config else 0.999)

    def step(self, model: SemanticSystem, batch: list[dict]) -> torch.Tensor:
        losses = model.train()(batch)
        assert list(losses) == ["loss_sem_seg"]
        losses["loss_sem_seg"].backward()
        return losses["loss_sem_seg"].detach()

    @torch.no_grad()
    def predict(self, model: SemanticSystem, batch: list[dict]) -> list[torch.Tensor]:
        return [result["sem_seg"] for result in model.eval()(batch)]

    @pytest.mark.parametrize("sizes", [[(8, 8)] * 2, [(33, 47)] * 2, [(20, 64), (41, 19)]])
    def test_trains_and_predicts_at_any_size(self, sizes) -> None:
        model, batch = self.build(), [sample(*size) for size in sizes]
        assert self.step(model, batch).isfinite()
        predictions = self.predict(model, batch)
        assert [tuple(p.shape) for p in predictions] == [(3, *size) for size in sizes]
        assert all(p.isfinite().all() and p.dtype == torch.float32 for p in predictions)

    def test_predicts_at_the_original_size(self) -> None:
        batch = [{"image": sample(24, 40)["image"], "height": 51, "width": 77}]
        assert self.predict(self.build(), batch)[0].shape == (3, 51, 77)

    def test_gradient_reaches_every_parameter(self) -> None:
        model = self.build()
        self.step(model, [sample(48, 48), sample(48, 48)])
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            # A bias before a batch norm cancels out.
            assert parameter.grad.any() or name.endswith("bias"), name

    @pytest.mark.parametrize("num_classes", [1, 3, 150])
    def test_loss_is_the_cross_entropy_of_the_valid_pixels(self, num_classes: int) -> None:
        model, seen = self.build(num_classes), {}

        def look(module, inputs):
            inputs[0].retain_grad()
            seen["logits"], seen["targets"] = inputs[:2]

        model.sem_seg_head.loss.register_forward_pre_hook(look)
        found = self.step(model, [sample(32, 48, num_classes), sample(32, 48, num_classes)])
        logits, targets = seen["logits"], seen["targets"]
        assert logits.shape[1] == num_classes
        valid = targets != IGNORE
        scores = logits.movedim(1, -1)[valid]
        if num_classes == 1:
            expected = F.binary_cross_entropy_with_logits(scores[:, 0], targets[valid].float())
        else:
            expected = F.cross_entropy(scores, targets[valid])
        torch.testing.assert_close(found, expected.detach())
        assert not logits.grad.movedim(1, -1)[~valid].any()

    def test_all_pixels_ignored(self) -> None:
        model, batch = self.build(), [sample(32, 32), sample(32, 32)]
        for item in batch:
            item["sem_seg"].fill_(IGNORE)
        assert self.step(model, batch) == 0
        assert not any(p.grad.any() for p in model.parameters() if p.grad is not None)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_autocast(self, dtype: torch.dtype) -> None:
        model, batch = self.build(), [sample(32, 48), sample(32, 48)]
        with torch.autocast(self.device, dtype=dtype):
            assert self.step(model, batch).isfinite()
            predictions = self.predict(model, batch)
        assert all(p.isfinite().all() and p.dtype == torch.float32 for p in predictions)

    def test_channels_last(self) -> None:
        model, batch = self.build(), [sample(33, 40), sample(33, 40)]
        expected = self.predict(model, batch)
        model = model.to(memory_format=torch.channels_last)
        for found, reference in zip(self.predict(model, batch), expected, strict=True):
            self.assert_near(found, reference)
        assert self.step(model, batch).isfinite()

    def test_state_dict_round_trip(self) -> None:
        first, second, batch = self.build(), self.build(), [sample(32, 48)]
        self.step(first, [sample(32, 48), sample(32, 48)])
        second.load_state_dict(first.state_dict())
        expected, found = self.predict(first, batch), self.predict(second, batch)
        assert torch.equal(expected[0], found[0])

    def test_runs_by_windows_tiles_scales_and_flips(self) -> None:
        batch = [{"image": sample(40, 70)["image"]}]
        for mode in ("slide", "overlap_tile"):
            opts = {"MODE": mode, "WINDOW": [32, 48], "STRIDE": [24, 24], "SCALES": [1.0, 1.25]}
            pairs = [(f"MODEL.INFERENCE.{key}", value) for key, value in opts.items()]
            model = self.build(3, *sum(pairs, ()), "MODEL.INFERENCE.FLIP", True)
            assert self.predict(model, batch)[0].shape == (3, 40, 70)

    def test_predicts_what_the_cpu_predicts(self) -> None:
        if self.device == "cpu":
            pytest.skip("the other devices' cases compare with it")
        model, batch = self.build(), [sample(48, 64), sample(33, 47)]
        found = self.predict(model, batch)
        for ours, reference in zip(found, self.predict(model.cpu(), batch), strict=True):
            self.assert_near(ours, reference)

    @pytest.mark.parametrize("setting", ["float32", "channels last, bfloat16"])
    def test_the_host_never_waits_for_a_training_step(self, setting: str) -> None:
        if self.device == "cpu":
            pytest.skip("samples and model are the host's own there: nothing waits")
        model, batch = self.build(), [sample(48, 48), sample(48, 48)]
        if setting != "float32":
            model.to(memory_format=torch.channels_last)
        with torch.autocast(self.device, torch.bfloat16, enabled=setting != "float32"):
            self.step(model, batch)
            with host_never_waits(self.device):
                loss = self.step(model, batch)
        assert loss.isfinite()


class TestFCN(SemanticSystemContract):
    config = "_base_/fcn.yaml"
    opts: ClassVar = ["MODEL.VGG.DEPTH", 11, "MODEL.VGG.WIDTH", 16, "MODEL.VGG.FC_CHANNELS", 32]


class TestFCNOnResNet(SemanticSystemContract):
    config = "_base_/fcn.yaml"
    opts: ClassVar = [
        *("MODEL.BACKBONE.NAME", "build_timm_backbone", "MODEL.TIMM.NAME", "resnet18"),
        *("MODEL.TIMM.OUT_FEATURES", ["res3", "res4", "res5"]),
        *("MODEL.SEM_SEG_HEAD.IN_FEATURES", ["res3", "res4", "res5"]),
    ]


class TestUNet(SemanticSystemContract):
    config = "_base_/unet.yaml"
    opts: ClassVar = [
        *("MODEL.UNET.DEPTH", 3, "MODEL.UNET.WIDTH", 16),
        *("MODEL.SEM_SEG_HEAD.IN_FEATURES", ["enc1", "enc2", "enc3"]),
    ]


class TestUNetSame(TestUNet):
    opts: ClassVar = [
        *TestUNet.opts,
        *("MODEL.UNET.PADDING", "same", "MODEL.UNET.NORM", "BN", "MODEL.SEM_SEG_HEAD.NORM", "BN"),
        *("MODEL.UNET.UPSAMPLING", "bilinear"),
    ]


class TestUNetOnResNet(SemanticSystemContract):
    config = "_base_/unet.yaml"
    opts: ClassVar = [
        *("MODEL.BACKBONE.NAME", "build_timm_backbone", "MODEL.TIMM.NAME", "resnet18"),
        *("MODEL.TIMM.OUT_FEATURES", ["res1", "res2", "res3", "res4"]),
        *("MODEL.SEM_SEG_HEAD.IN_FEATURES", ["res1", "res2", "res3", "res4"]),
        *("MODEL.UNET.PADDING", "same"),
    ]


class TestSegNet(SemanticSystemContract):
    config = "_base_/segnet.yaml"
    opts: ClassVar = ["MODEL.VGG.WIDTH", 16]


class TestSegNetBasic(SemanticSystemContract):
    config = "_base_/segnet_basic.yaml"
    opts: ClassVar = ["MODEL.SEGNET.BASIC_WIDTH", 16]


class TestDeepLabV3Plus(SemanticSystemContract):
    config = "_base_/deeplabv3plus.yaml"
    opts: ClassVar = [
        *("MODEL.BACKBONE.NAME", "build_timm_backbone", "MODEL.TIMM.NAME", "resnet18"),
        *("MODEL.TIMM.OUT_FEATURES", ["res2", "res5"], "MODEL.TIMM.OUTPUT_STRIDE", 16),
        *("MODEL.SEM_SEG_HEAD.NORM", "BN", "MODEL.SEM_SEG_HEAD.ASPP_CHANNELS", 32),
        *("MODEL.SEM_SEG_HEAD.CONVS_DIM", 32, "MODEL.SEM_SEG_HEAD.ASPP_DROPOUT", 0.0),
    ]


class TestPatchClassifier(SemanticSystemContract):
    config = "_base_/patch_classifier.yaml"
    opts: ClassVar = [
        *("MODEL.PATCH.KERNELS", [4, 3], "MODEL.PATCH.CHANNELS", 16, "MODEL.PATCH.HIDDEN", 32),
        *("MODEL.PATCH.SAMPLES_PER_IMAGE", 64),
    ]
