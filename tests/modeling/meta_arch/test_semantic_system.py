from seg_plugins import load_config
from seg_plugins.config import ConfigError
from seg_plugins.modeling.meta_arch.semantic import SemanticSystem
from seg_plugins.modeling.meta_arch.semantic_labels import check_labels
from seg_plugins.modeling.sem_seg_heads.base import SemSegHead

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone, build_model
from torch import nn

CONFIG = "quickstart/deeplabv3plus_r18_shapes.yaml"
CPU = ["MODEL.DEVICE", "cpu"]


class Pixels(Backbone):
    """Gives the normalised image back, to see what the segmentor feeds."""

    size_divisibility = 4

    def forward(self, x):
        self.seen = x
        return {"pixels": x}

    def output_shape(self):
        return {"pixels": ShapeSpec(channels=3, stride=1)}


class Scores(SemSegHead):
    def layers(self, features):
        return features["pixels"]

    def losses(self, logits, targets, weights=None):
        self.targets, self.weights = targets, weights
        return {"loss_sem_seg": logits.sum() * 0}


def segmentor() -> SemanticSystem:
    return SemanticSystem(
        backbone=Pixels(),
        sem_seg_head=Scores(num_classes=3),
        pixel_mean=[10.0, 20.0, 30.0],
        pixel_std=[2.0, 2.0, 2.0],
    )


def sample(rows: int, columns: int, **extra) -> dict:
    image = torch.tensor([12, 20, 28], dtype=torch.uint8).view(3, 1, 1).expand(3, rows, columns)
    return {"image": image, "sem_seg": torch.ones(rows, columns, dtype=torch.uint8), **extra}


def test_normalises_and_pads_with_the_mean_and_the_ignore_label() -> None:
    model = segmentor()
    model([sample(3, 6), sample(5, 2)])
    seen, targets = model.backbone.seen, model.sem_seg_head.targets
    assert seen.shape == (2, 3, 8, 8)
    torch.testing.assert_close(seen[0, :, 0, 0], torch.tensor([1.0, 0.0, -1.0]))
    assert not seen[0, :, 3:].any()
    assert targets[0, :3, :6].eq(1).all()
    assert targets.ne(255).sum() == 3 * 6 + 5 * 2
    assert model.sem_seg_head.weights is None


def test_pixel_weights_reach_the_loss() -> None:
    model = segmentor()
    model([sample(4, 4, sem_seg_weights=torch.full((4, 4), 7.0)), sample(2, 4)])
    weights = model.sem_seg_head.weights
    assert weights[0].eq(7).all()
    assert weights[1].eq(1).all()


def test_predicts_at_the_wanted_size() -> None:
    model = segmentor().eval()
    results = model([sample(3, 6), sample(5, 2, height=10, width=20)])
    assert [tuple(r["sem_seg"].shape) for r in results] == [(3, 3, 6), (3, 10, 20)]
    # Padding is cut before resizing: a constant image stays constant to its border.
    torch.testing.assert_close(results[1]["sem_seg"][0], torch.ones(10, 20))


def test_labels_outside_the_classes_name_the_file() -> None:
    bad = sample(2, 2, sem_seg_file_name="frame7.png")
    bad["sem_seg"][0, 0] = 9
    with pytest.raises(ValueError, match=r"frame7\.png: label 9 in 1 pixels.*NUM_CLASSES 3"):
        segmentor()([bad])


def test_missing_labels_name_the_file() -> None:
    unlabelled = sample(2, 2, file_name="frame7.jpg")
    del unlabelled["sem_seg"]
    with pytest.raises(ValueError, match=r"frame7\.jpg has no 'sem_seg'"):
        segmentor()([unlabelled])


@pytest.mark.parametrize(("label", "classes", "valid"), [
    (0, 1, True), (1, 1, True), (2, 1, False), (255, 1, True), (-1, 3, False), (2, 3, True),
])  # fmt: skip
def test_label_ranges(label: int, classes: int, valid: bool) -> None:
    labels = torch.full((2, 2), label)
    if valid:
        check_labels(labels, classes, 255, "x")
    else:
        with pytest.raises(ValueError, match=f"label {label}"):
            check_labels(labels, classes, 255, "x")


def test_system_refuses_a_foreign_head() -> None:
    cfg = load_config(CONFIG, [*CPU, "MODEL.SEM_SEG_HEAD.NAME", "SemSegFPNHead"])
    with pytest.raises(ConfigError, match="SemSegDeepLabV3PlusHead, not SemSegFPNHead"):
        build_model(cfg)


def test_deeplab_on_detectron2_resnet_at_both_output_strides() -> None:
    opts = [*CPU, "MODEL.BACKBONE.NAME", "build_resnet_deeplab_backbone",
            "MODEL.RESNETS.DEPTH", "50", "MODEL.RESNETS.NORM", "BN"]  # fmt: skip
    os8 = ["MODEL.RESNETS.RES4_DILATION", "2", "MODEL.RESNETS.RES5_DILATION", "4"]
    for stride, more in ((16, []), (8, os8)):
        with torch.device("meta"):
            model = build_model(load_config(CONFIG, [*opts, *more, "MODEL.DEVICE", "meta"]))
        assert isinstance(model.backbone, nn.Module)
        assert model.backbone.output_shape()["res5"].stride == stride


@pytest.mark.parametrize(
    ("head", "settings", "message"),
    [
        ("DeepLabV3PlusHead", {"LOSS_TYPE": "focal(gamma=1.5)"}, "SemSegDeepLabV3PlusHead, which"),
        ("DeepLabV3PlusHead", {"CLASS_WEIGHTS": [1.0] * 8}, "does not know CLASS_WEIGHTS"),
        ("DeepLabV3Head", {}, r"takes one feature: .*\['res2', 'res5'\] alone"),
        ("DeepLabV3PlusHead", {}, None),
        ("DeepLabV3Head", {"IN_FEATURES": ["res5"]}, None),
    ],
)
def test_detectron2s_deeplab_heads_refuse_what_they_would_ignore(head, settings, message) -> None:
    """Class weights would be left out in silence, a loss end in 'Unexpected loss type'."""
    cfg = load_config(CONFIG, [*CPU, "MODEL.META_ARCHITECTURE", "SemanticSystem"])
    options = {"NAME": head, "LOSS_TYPE": "hard_pixel_mining", "CLASS_WEIGHTS": None, **settings}
    cfg.MODEL.SEM_SEG_HEAD.update(options)
    if message:
        with pytest.raises(ConfigError, match=f"NAME {head} is Detectron2's.*{message}"):
            build_model(cfg)
    else:
        assert type(build_model(cfg).sem_seg_head).__name__ == head
