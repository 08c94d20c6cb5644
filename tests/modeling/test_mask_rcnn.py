from __future__ import annotations

from pathlib import Path

from seg_plugins import load_config
from seg_plugins.config import ConfigError
from seg_plugins.modeling.meta_arch.mask_rcnn import (
    keep_scores_in_float32,
    postprocess_to_run_lengths,
)
from seg_plugins.modeling.roi_pooler import FusedROIPooler
from seg_plugins.modeling.sem_seg_heads.base import ScoreConv2d

import pytest
import torch
import torch.nn.functional as F
from detectron2 import model_zoo
from detectron2.layers import Conv2d, paste_masks_in_image
from detectron2.modeling import build_model
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import nn

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SYSTEMS = {"fpn": "MaskRCNNFPN", "c4": "MaskRCNNC4"}
ZOO = {
    "fpn": "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml",
    "c4": "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_3x.yaml",
}


def small_config(system, *overrides):
    """A ResNet-18 with few channels and few regions."""
    cfg = load_config(CONFIGS / "shapes" / f"mask_rcnn_r18_{system}.yaml")
    cfg.merge_from_list(
        [
            *("MODEL.DEVICE", "cpu", "MODEL.RESNETS.NORM", "FrozenBN", "MODEL.FPN.NORM", ""),
            *("MODEL.FPN.OUT_CHANNELS", 32, "MODEL.ROI_BOX_HEAD.FC_DIM", 32),
            *("MODEL.ROI_MASK_HEAD.CONV_DIM", 16, "MODEL.ROI_MASK_HEAD.OUTPUT_FORMAT", "bitmask"),
            *("MODEL.RPN.POST_NMS_TOPK_TRAIN", 40, "MODEL.RPN.POST_NMS_TOPK_TEST", 40),
            *("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0, "TEST.DETECTIONS_PER_IMAGE", 12),
            *overrides,
        ]
    )
    return cfg


def pair(system, *overrides):
    """This package's system and Detectron2's GeneralizedRCNN with equal weights."""
    ours = build_model(small_config(system, *overrides))
    cfg = small_config(system, *overrides)
    cfg.MODEL.META_ARCHITECTURE = "GeneralizedRCNN"
    theirs = build_model(cfg)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def samples():
    generator = torch.Generator().manual_seed(5)
    batch = []
    for size in ((96, 128), (112, 80)):
        masks = torch.zeros(3, *size, dtype=torch.bool)
        for i, mask in enumerate(masks):
            mask[8 * i + 4 : 20 * i + 30, 6 * i + 3 : 15 * i + 40] = True
        instances = Instances(size)
        instances.gt_masks = BitMasks(masks)
        instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        instances.gt_classes = torch.tensor([0, 3, 5])
        image = torch.randint(256, (3, *size), generator=generator, dtype=torch.uint8)
        batch.append({"image": image, "instances": instances, "height": 150, "width": 170})
    return batch


@pytest.mark.parametrize("system", SYSTEMS)
def test_predictions_equal_detectron2s(system):
    ours, theirs = (model.eval() for model in pair(system))
    assert type(ours).__name__ == SYSTEMS[system]
    with torch.no_grad():
        for found, expected in zip(ours(samples()), theirs(samples()), strict=True):
            found, expected = found["instances"], expected["instances"]
            assert len(found) == len(expected) > 0
            torch.testing.assert_close(
                found.pred_boxes.tensor, expected.pred_boxes.tensor, rtol=0, atol=1e-3
            )
            torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-5)
            assert torch.equal(found.pred_classes, expected.pred_classes)
            assert found.pred_masks.shape == (len(found), 150, 170)
            assert (found.pred_masks != expected.pred_masks).float().mean() < 1e-4


@pytest.mark.parametrize("system", SYSTEMS)
def test_losses_and_gradients_equal_detectron2s(system, monkeypatch):
    # Without kinks: at that of a ReLU the last digit of a pooled value, which the two may have
    # different, decides on a gradient of 0 or 1.
    for owner, name in ((F, "relu"), (F, "relu_"), (nn.ReLU, "forward")):
        monkeypatch.setattr(owner, name, lambda *values, **_: F.silu(values[-1]))
    models = pair(system)
    for seed in (12, 13):
        results = []
        for model in models:
            model.zero_grad()
            torch.manual_seed(seed)
            with EventStorage():
                losses = model.train()(samples())
            sum(losses.values()).backward()
            gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
            results.append((losses, gradients))
        (losses, gradients), (their_losses, their_gradients) = results
        assert set(losses) == {
            *("loss_cls", "loss_box_reg", "loss_mask", "loss_rpn_cls", "loss_rpn_loc")
        }
        torch.testing.assert_close(losses, their_losses, rtol=1e-5, atol=1e-6)
        assert gradients.keys() == their_gradients.keys()
        for name, gradient in gradients.items():
            scale = float(their_gradients[name].abs().max()) + 1e-6
            assert (gradient - their_gradients[name]).abs().max() <= 1e-4 * scale, name


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("layers", [50, 101])
def test_zoo_state_dicts_fit_key_for_key(system, layers):
    cfg = load_config(CONFIGS / "coco" / f"mask_rcnn_r{layers}_{system}_3x.yaml")
    zoo = model_zoo.get_config(ZOO[system])
    zoo.MODEL.RESNETS.DEPTH = layers
    zoo.MODEL.DEVICE = cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        ours, theirs = build_model(cfg), build_model(zoo)
    shapes = {name: value.shape for name, value in ours.state_dict().items()}
    assert shapes == {name: value.shape for name, value in theirs.state_dict().items()}


@pytest.mark.parametrize("system", SYSTEMS)
def test_run_length_masks_are_the_bitmasks(system):
    model = build_model(small_config(system)).eval()
    with torch.no_grad():
        bitmasks = [r["instances"].pred_masks for r in model(samples())]
        model.mask_format = "rle"
        for result, expected in zip(model(samples()), bitmasks, strict=True):
            instances = result["instances"]
            assert instances.pred_masks.size == (150, 170)
            found = torch.from_numpy(instances.pred_masks.to_bitmasks()).bool()
            assert torch.equal(found, expected)
            # Instances can be chosen from, as evaluators and pictures do.
            assert len(instances[instances.scores > instances.scores.median()].pred_masks) < len(
                instances
            )


def test_postprocessing_drops_empty_boxes_with_their_masks():
    def raw():
        instances = Instances((50, 60))
        instances.pred_boxes = Boxes(
            torch.tensor([[3.0, 4, 30, 40], [70, 70, 90, 90], [10, 5, 60, 50]])
        )
        instances.scores = torch.tensor([0.9, 0.8, 0.7])
        instances.pred_masks = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(1))
        return instances

    found = postprocess_to_run_lengths(raw(), 100, 90)
    expected = detector_postprocess(raw(), 100, 90)
    assert torch.equal(found.scores, torch.tensor([0.9, 0.7]))
    assert torch.equal(found.pred_boxes.tensor, expected.pred_boxes.tensor)
    assert torch.equal(
        torch.from_numpy(found.pred_masks.to_bitmasks()).bool(),
        paste_masks_in_image(raw().pred_masks[[0, 2], 0], expected.pred_boxes.tensor, (100, 90)),
    )


@pytest.mark.parametrize("mask_format", ["bitmask", "rle"])
def test_faster_rcnn_has_no_masks(mask_format):
    cfg = small_config(
        "fpn", "MODEL.MASK_ON", False, "MODEL.ROI_MASK_HEAD.OUTPUT_FORMAT", mask_format
    )
    model = build_model(cfg)
    with EventStorage():
        assert "loss_mask" not in model.train()(samples())
    with torch.no_grad():
        instances = model.eval()(samples())[0]["instances"]
    assert not instances.has("pred_masks")
    assert len(instances) > 0


@pytest.mark.parametrize("kind", ["ROIAlignV2", "ROIAlign", "ROIAlignMax", "ROIPool"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_every_pooler_type_trains(system, kind):
    types = ("MODEL.ROI_BOX_HEAD.POOLER_TYPE", kind, "MODEL.ROI_MASK_HEAD.POOLER_TYPE", kind)
    model = build_model(small_config(system, *types)).train()
    poolers = [m for m in model.modules() if isinstance(m, FusedROIPooler)]
    assert {p.pooler_type for p in poolers} == {kind}
    assert not any(isinstance(m, ROIPooler) for m in model.modules())
    with EventStorage():
        losses = model(samples())
    sum(losses.values()).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert all(p.grad is None or torch.isfinite(p.grad).all() for _, p in model.named_parameters())


def test_detectron2s_pooler_by_config():
    model = build_model(small_config("fpn", "MODEL.ROI_POOLER", "detectron2"))
    assert isinstance(model.roi_heads.box_pooler, ROIPooler)
    assert isinstance(model.roi_heads.mask_pooler, ROIPooler)


def test_few_scores_keep_their_parameters_and_leave_autocast():
    class Own(torch.nn.Conv2d):
        pass

    head = torch.nn.Sequential(
        torch.nn.Conv2d(8, 3, 1), Conv2d(8, 15, 1, bias=False), Conv2d(8, 3, 1, activation=abs),
        torch.nn.Conv2d(8, 16, 1), torch.nn.Conv2d(8, 3, 3, padding=1), Own(8, 3, 1),
    ).eval()  # fmt: skip
    parameters, x = dict(head.named_parameters()), torch.rand(1, 8, 5, 5)
    expected = [conv(x) for conv in head]
    keep_scores_in_float32(head)
    assert [type(conv) is ScoreConv2d for conv in head] == [True, True, *[False] * 4]
    assert list(dict(head.named_parameters())) == list(parameters)
    assert all(parameter is parameters[name] for name, parameter in head.named_parameters())
    assert not any(conv.training for conv in head)
    assert all(map(torch.equal, [conv(x) for conv in head], expected))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(head[0](x), expected[0])


@pytest.mark.parametrize(
    "overrides",
    [
        ("MODEL.RESNETS.NORM", "BN"),
        ("MODEL.RESNETS.NORM", "GN", "MODEL.FPN.NORM", "GN"),
        ("MODEL.RESNETS.NORM", "SyncBN"),
        ("MODEL.BACKBONE.NAME", "build_timm_fpn_backbone", "MODEL.TIMM.NAME", "resnet18"),
        (
            *("MODEL.RESNETS.DEPTH", 50, "MODEL.RESNETS.RES2_OUT_CHANNELS", 256),
            *("MODEL.RESNETS.NUM_GROUPS", 32, "MODEL.RESNETS.WIDTH_PER_GROUP", 4),
        ),
    ],
    ids=["BN", "GN", "SyncBN", "timm", "ResNeXt"],
)
def test_norms_and_backbones_train_under_autocast(overrides):
    model = build_model(small_config("fpn", *overrides))
    # SyncBN refuses to train on the CPU: there it is built and evaluated.
    training = "SyncBN" not in overrides
    model.train(training)
    with EventStorage(), torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(samples())
    if training:
        sum(output.values()).backward()
        assert all(torch.isfinite(loss) for loss in output.values())
    else:
        assert len(output) == 2


@pytest.mark.parametrize(
    ("system", "overrides", "message"),
    [
        ("fpn", ("MODEL.META_ARCHITECTURE", "MaskRCNNC4"), "Res5ROIHeads"),
        ("c4", ("MODEL.META_ARCHITECTURE", "MaskRCNNFPN"), "StandardROIHeads"),
        ("fpn", ("MODEL.BACKBONE.NAME", "build_resnet_backbone"), "build_resnet_fpn_backbone"),
        ("c4", ("MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone"), "one map"),
        ("fpn", ("MODEL.ROI_POOLER", "fast"), "fused or detectron2"),
        ("fpn", ("MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIAlignV3"), "ROIAlignMax"),
        (
            "fpn",
            *[("MODEL.ROI_POOLER", "detectron2", "MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIAlignMax")],
            "choose one of",
        ),
        ("fpn", ("MODEL.ROI_MASK_HEAD.OUTPUT_FORMAT", "polygon"), "bitmask or rle"),
    ],
)
def test_parts_that_do_not_belong_together_are_named(system, overrides, message):
    with pytest.raises(ConfigError, match=message):
        build_model(small_config(system, *overrides))
