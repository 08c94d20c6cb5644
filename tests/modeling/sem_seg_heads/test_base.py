from seg_plugins.config import ConfigError
from seg_plugins.modeling.sem_seg_heads.base import ScoreConv2d, SemSegHead, select_features

import pytest
import torch
from detectron2.layers import ShapeSpec


class Identity(SemSegHead):
    def layers(self, features):
        return features["scores"]


def test_logits_are_upsampled_bilinearly() -> None:
    # A ramp of cell centres 0, 1 upsampled by 2: 0, 0.25, 0.75, 1.
    head = Identity(num_classes=1, common_stride=2).eval()
    logits, losses = head({"scores": torch.tensor([[[[0.0, 1.0]]]])})
    assert losses == {}
    torch.testing.assert_close(
        logits, torch.tensor([[[[0, 0.25, 0.75, 1]]] * 1]).expand(1, 1, 2, 4)
    )


def test_loss_is_cut_to_the_targets_and_weighted() -> None:
    head = Identity(num_classes=2, loss_weight=3.0)
    scores = torch.zeros(1, 2, 4, 4)
    scores[..., 3, :] = 99.0  # outside the targets
    result, losses = head({"scores": scores}, torch.zeros(1, 3, 3, dtype=torch.long))
    assert result is None
    assert losses["loss_sem_seg"].item() == pytest.approx(3 * 0.6931472)


def test_training_without_targets_says_so() -> None:
    with pytest.raises(ValueError, match="'sem_seg'"):
        Identity(num_classes=2)({"scores": torch.zeros(1, 2, 4, 4)})


def test_score_layer_computes_in_float32() -> None:
    torch.manual_seed(0)
    conv, x = ScoreConv2d(64, 3, 1), torch.randn(1, 64, 5, 5)
    expected = conv(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = conv(x)
    assert torch.equal(found, expected)


def test_missing_feature_lists_those_there_are() -> None:
    shapes = {"res4": ShapeSpec(channels=8, stride=16)}
    with pytest.raises(ConfigError, match=r"\['res2'\].*res4 \(stride 16\)"):
        select_features(shapes, ["res2", "res4"], "SomeHead")
    assert list(select_features(shapes, ["res4"], "SomeHead")) == ["res4"]


def test_number_of_classes_is_checked() -> None:
    with pytest.raises(ConfigError, match="NUM_CLASSES"):
        Identity(num_classes=0)


def test_scores_that_do_not_cover_the_image_say_so() -> None:
    with pytest.raises(ValueError, match=r"3 x 4, do not cover the image, 4 x 4.*INPUT_PAD"):
        Identity(num_classes=2)({"scores": torch.zeros(1, 2, 3, 4)}, torch.zeros(1, 4, 4).long())
