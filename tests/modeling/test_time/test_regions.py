"""Mask R-CNN over views, beside Detectron2's GeneralizedRCNNWithTTA on the same weights."""

from __future__ import annotations

import copy

from seg_plugins import load_config
from seg_plugins.modeling.test_time.augmentation import with_test_time_augmentation

import pytest
import torch
from detectron2.modeling import GeneralizedRCNNWithTTA, build_model
from torch import Tensor

SMALL = [
    *("MODEL.DEVICE", "cpu", "MODEL.RESNETS.NORM", "FrozenBN", "MODEL.FPN.NORM", ""),
    *("MODEL.FPN.OUT_CHANNELS", 32, "MODEL.ROI_BOX_HEAD.FC_DIM", 32),
    *("MODEL.ROI_MASK_HEAD.CONV_DIM", 16, "MODEL.ROI_MASK_HEAD.OUTPUT_FORMAT", "bitmask"),
    *("MODEL.RPN.POST_NMS_TOPK_TEST", 10, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0),
    *("TEST.DETECTIONS_PER_IMAGE", 6, "TEST.AUG.ENABLED", True),
]
SIZES = ["TEST.AUG.MIN_SIZES", (72, 130), "TEST.AUG.MAX_SIZE", 150]


def system(kind: str, *opts: object):
    """A small Mask R-CNN with random weights, and its configuration."""
    cfg = load_config(f"shapes/mask_rcnn_r18_{kind}.yaml", [*SMALL, *opts])
    torch.manual_seed(3)
    model = build_model(cfg).eval()
    if cfg.MODEL.MASK_ON:  # masks with pixels of both kinds
        model.roi_heads.mask_head.predictor.weight.data *= 300
    return cfg, model


def sample(height: int = 150, width: int = 170) -> dict:
    generator = torch.Generator().manual_seed(5)
    image = torch.randint(256, (3, 96, 109), generator=generator, dtype=torch.uint8)
    return {"image": image, "height": height, "width": width}


def predict(model, *samples: dict):
    with torch.no_grad():
        return [result["instances"] for result in model([copy.copy(s) for s in samples])]


def assert_same(found, expected) -> None:
    assert len(found) == len(expected) > 0
    torch.testing.assert_close(
        found.pred_boxes.tensor, expected.pred_boxes.tensor, rtol=0, atol=1e-3
    )
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-5)
    assert torch.equal(found.pred_classes, expected.pred_classes)
    masks = torch.as_tensor(found.pred_masks), torch.as_tensor(expected.pred_masks)
    assert (masks[0].bool() != masks[1].bool()).float().mean() < 1e-4


@pytest.mark.parametrize(("kind", "flip"), [("fpn", True), ("fpn", False), ("c4", True)])
def test_results_equal_detectron2s(kind: str, flip: bool) -> None:
    cfg, model = system(kind, *SIZES, "TEST.AUG.FLIP", flip)
    # One view at a time: else Detectron2 pads views to the size of others.
    expected = predict(GeneralizedRCNNWithTTA(cfg, model, batch_size=1), sample())[0]
    found = predict(with_test_time_augmentation(cfg, model), sample())[0]
    assert_same(found, expected)
    share = found.pred_masks.sum() / found.pred_boxes.area().sum()
    assert 0.05 < share < 0.97  # of each box


def test_detectron2s_result_depends_on_its_batch() -> None:
    """The fault that the comparison above avoids: views are padded to the size of others."""
    cfg, model = system("fpn", *SIZES)
    alone = predict(GeneralizedRCNNWithTTA(cfg, model, batch_size=1), sample())[0]
    together = predict(GeneralizedRCNNWithTTA(cfg, model, batch_size=3), sample())[0]
    assert not torch.allclose(alone.scores, together.scores, rtol=0, atol=1e-5)


def test_run_lengths_are_the_bitmasks() -> None:
    cfg, model = system("fpn", *SIZES)
    augmented = with_test_time_augmentation(cfg, model)
    expected = predict(augmented, sample())[0]
    model.mask_format = "rle"
    found = predict(augmented, sample())[0]
    assert found.pred_masks.to_bitmasks().tolist() == expected.pred_masks.int().tolist()


@pytest.mark.parametrize("kind", ["fpn", "c4"])
def test_one_view_of_the_images_size_is_the_plain_system(kind: str) -> None:
    cfg, model = system(kind, "TEST.AUG.MIN_SIZES", (96,), "TEST.AUG.FLIP", False)
    for size in [(150, 170)] if kind == "c4" else [(96, 109), (150, 170)]:
        expected = predict(model, sample(*size))[0]
        assert_same(predict(with_test_time_augmentation(cfg, model), sample(*size))[0], expected)


def test_detectron2s_own_system_is_augmented_too() -> None:
    cfg, ours = system("fpn", *SIZES)
    cfg.MODEL.META_ARCHITECTURE = "GeneralizedRCNN"
    theirs = build_model(cfg).eval()
    theirs.load_state_dict(ours.state_dict())
    expected = predict(with_test_time_augmentation(cfg, ours), sample())[0]
    assert_same(predict(with_test_time_augmentation(cfg, theirs), sample())[0], expected)


def test_boxes_alone_and_default_size() -> None:
    cfg, model = system("fpn", *SIZES, "MODEL.MASK_ON", False)
    found = predict(with_test_time_augmentation(cfg, model), {"image": sample()["image"]})[0]
    assert found.image_size == (96, 109)
    assert len(found) > 0
    assert not found.has("pred_masks")


def test_nothing_found() -> None:
    cfg, model = system("fpn", *SIZES, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 1.0)
    found = predict(with_test_time_augmentation(cfg, model), sample())[0]
    assert len(found) == 0
    assert found.pred_masks.shape == (0, 150, 170)


def test_the_mask_head_is_on_again_after_an_error() -> None:
    cfg, model = system("fpn", *SIZES)
    augmented = with_test_time_augmentation(cfg, model)
    broken: dict[str, Tensor] = {"image": torch.zeros(2, 96, 109)}  # a channel too few
    with pytest.raises(RuntimeError):
        predict(augmented, broken)
    assert model.roi_heads.mask_on
