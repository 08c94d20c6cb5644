from __future__ import annotations

from seg_plugins import load_config
from seg_plugins.config import ConfigError
from seg_plugins.modeling.instance_centers import center_targets
from seg_plugins.modeling.sem_seg_heads.deeplab_v3_plus import SemSegDeepLabV3PlusHead

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Instances
from panoptic_samples import IGNORE, sample
from torch import nn


def small_model(*overrides):
    cfg = load_config(
        "shapes/panoptic_bottom_up.yaml",
        [
            *("MODEL.DEVICE", "cpu", "MODEL.SEM_SEG_HEAD.ASPP_CHANNELS", 16),
            *("MODEL.SEM_SEG_HEAD.CONVS_DIM", 16, "MODEL.INS_EMBED_HEAD.CONVS_DIM", 16),
            *("MODEL.INS_EMBED_HEAD.ASPP_CHANNELS", 16, "MODEL.SEM_SEG_HEAD.ASPP_DROPOUT", 0.0),
            *("MODEL.INS_EMBED_HEAD.ASPP_DROPOUT", 0.0),
            *overrides,
        ],
    )
    return build_model(cfg)


class Oracle(nn.Module):
    """A centre head that knows the targets."""

    def __init__(self, masks):
        super().__init__()
        self.targets = center_targets(masks, 4)
        # A slope, so that a peak stays one pixel when it is upsampled.
        height, width = masks.shape[-2:]
        slope = torch.arange(height * width).reshape(height, width) * 1e-6
        self.heatmap = self.targets.heatmap + slope * (self.targets.heatmap > 0)

    def predict(self, features):
        return self.heatmap[None, None], self.targets.offsets[None]


@torch.no_grad()
def predict(model, batch):
    return model.eval()(batch)


def test_gradient_of_each_task_reaches_the_backbone():
    model = small_model().train()
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.out_channels in (1, 2, 8):
            nn.init.normal_(module.weight, std=0.1)
    losses = model([sample(), sample()])
    assert set(losses) == {"loss_sem_seg", "loss_center", "loss_offset"}
    first = next(model.backbone.parameters())
    for name, loss in losses.items():
        model.zero_grad()
        loss.backward(retain_graph=True)
        assert first.grad.any(), name
        assert first.grad.isfinite().all(), name


def test_losses_are_means_over_the_pixels_that_count():
    """One image with one instance; the head predicts zeros."""
    model = small_model("MODEL.INS_EMBED_HEAD.CENTER_LOSS_WEIGHT", 2.0).train()
    for parameter in model.center_head.predictor.parameters():
        nn.init.zeros_(parameter)
    item = sample(count=1)
    targets = center_targets(item["instances"].gt_masks.tensor, model.sigma)
    losses = model([item, item])
    valid = item["sem_seg"] != IGNORE
    expected = 2 * (targets.heatmap**2)[valid].mean()
    torch.testing.assert_close(losses["loss_center"].detach(), expected)
    expected = 0.1 * targets.offsets.abs().sum(0)[targets.inside].mean()
    torch.testing.assert_close(losses["loss_offset"].detach(), expected)


def test_a_crowd_teaches_no_centre():
    model = small_model().train()
    crowd = sample(count=1)
    valid = (crowd["sem_seg"] != IGNORE) & (crowd["sem_seg"] != 0)
    crowd["instances"] = crowd["instances"][:0]  # its pixels keep their label
    seen = {}

    def look(features, targets, counted):
        seen["valid"] = counted
        return {}

    model.center_head.center_losses = look
    model([crowd])
    assert torch.equal(seen["valid"][0], valid)


def test_perfect_centres_give_the_true_segments():
    item = sample((64, 96), count=3)
    masks = item["instances"].gt_masks.tensor
    masks[0] &= ~masks[1] & ~masks[2]
    masks[1] &= ~masks[2]
    model = small_model("MODEL.PANOPTIC_DEEPLAB.STUFF_AREA", 1)
    model.center_head = Oracle(masks)
    labels = torch.where(item["sem_seg"] == IGNORE, 6, item["sem_seg"])
    scores = nn.functional.one_hot(labels, 8).movedim(-1, 0).float() * 20
    model.sem_seg_head.forward = lambda features: (scores[None], {})
    (result,) = predict(model, [{"image": item["image"]}])
    ids, segments = result["panoptic_seg"]
    assert [s["isthing"] for s in segments] == [True] * 3 + [False] * 2
    for segment in segments[:3]:
        assert torch.equal(ids == segment["id"], masks[segment["category_id"]])
        assert segment["score"] > 0.99
        assert torch.equal(result["instances"].pred_masks[segment["instance_id"]],
                           masks[segment["category_id"]])  # fmt: skip
    assert result["instances"].pred_classes.tolist() == [s["category_id"] for s in segments[:3]]
    for segment in segments[3:]:
        assert torch.equal(ids == segment["id"], labels == segment["category_id"])
        assert segment["area"] == (labels == segment["category_id"]).sum()


def test_offsets_grow_with_the_image():
    """Twice the size: centres and offsets still meet."""
    masks = torch.zeros(2, 64, 96, dtype=torch.bool)
    masks[0, 10:30, 10:40] = True
    masks[1, 10:30, 44:80] = True
    model = small_model()
    model.center_head = Oracle(masks)
    labels = masks.any(0).long() * -6 + 6
    scores = nn.functional.one_hot(labels, 8).movedim(-1, 0).float() * 20
    model.sem_seg_head.forward = lambda features: (scores[None], {})
    batch = [{"image": torch.zeros(3, 64, 96), "height": 128, "width": 192}]
    (result,) = predict(model, batch)
    ids = result["panoptic_seg"][0]
    assert len(result["instances"]) == 2
    assert ids[40, 22] == ids[40, 76] == 1
    assert ids[40, 92] == ids[40, 156] == 2


def test_any_size_and_any_semantic_head():
    fcn = ["MODEL.SEM_SEG_HEAD.NAME", "SemSegFCNHead", "MODEL.SEM_SEG_HEAD.COMMON_STRIDE", 4]
    for overrides in ([], [*fcn, "MODEL.SEM_SEG_HEAD.IN_FEATURES", ["res2", "res3"]]):
        model = small_model(*overrides)
        batch = [sample((61, 83)), {**sample((45, 70)), "height": 90, "width": 141}]
        for result, size in zip(predict(model, batch), ((61, 83), (90, 141)), strict=True):
            assert result["panoptic_seg"][0].shape == size
        assert all(loss.isfinite() for loss in model.train()(batch).values())


def test_images_without_one_task():
    model = small_model()
    empty, unlabelled = sample(count=0), sample(count=0)
    unlabelled["sem_seg"].fill_(IGNORE)
    for batch in ([empty, empty], [unlabelled, unlabelled], [empty, sample()]):
        model.zero_grad()
        losses = model.train()(batch)
        assert all(loss.isfinite() for loss in losses.values())
        sum(losses.values()).backward()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
        if batch[0] is unlabelled:
            assert not any(loss for loss in losses.values())
    assert len(predict(model, [empty])[0]["instances"]) == 0


def test_small_instances_weigh_more():
    item = sample(count=1)  # 480 pixels
    seen = {}

    def look(_module, inputs):
        seen["weights"] = inputs[2]

    for area, weight in ((10000, 3.0), (10, 1.0)):
        model = small_model("MODEL.PANOPTIC_DEEPLAB.SMALL_INSTANCE_AREA", area).train()
        model.sem_seg_head.register_forward_pre_hook(look)
        model([item, item])
        inside = item["instances"].gt_masks.tensor[0]
        assert (seen["weights"][0][inside] == weight).all()
        assert (seen["weights"][0][~inside] == 1).all()


def test_decoder_is_deeplabs():
    model = small_model()
    assert isinstance(model.center_head, SemSegDeepLabV3PlusHead)
    assert isinstance(model.sem_seg_head, SemSegDeepLabV3PlusHead)


def test_uncertainty_weighting():
    model = small_model("MODEL.PANOPTIC_FPN.LOSS_WEIGHTING", "uncertainty").train()
    assert "loss_uncertainty" in model([sample(), sample()])
    assert set(model.weighting.log_variance) == {"semantic", "centers", "offsets"}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("MODEL.PANOPTIC_FPN.THING_IDS", []), "needs MODEL.PANOPTIC_FPN.THING_IDS"),
        (("MODEL.PANOPTIC_FPN.THING_IDS", [1, 2]), r"2 labels, MODEL\.ROI_HEADS\.NUM_CLASSES is 6"),
        (("MODEL.INFERENCE.MODE", "slide"), "set MODEL.INFERENCE.MODE whole"),
    ],
)
def test_parts_that_do_not_fit(overrides, message):
    with pytest.raises(ConfigError, match=message):
        small_model(*overrides)


def test_sample_without_masks():
    item = {**sample(), "file_name": "street.jpg", "instances": Instances((64, 96))}
    assert isinstance(sample()["instances"].gt_masks, BitMasks)
    with pytest.raises(ValueError, match=r"street.jpg has no 'instances' with bitmasks"):
        small_model().train()([item])
