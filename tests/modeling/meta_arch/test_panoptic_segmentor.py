from __future__ import annotations

from seg_plugins import load_config
from seg_plugins.config import ConfigError

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from panoptic_samples import IGNORE, sample

HEADS = ("sem_seg_fpn", "fcn", "unet", "deeplabv3plus", "segnet")


def small_config(head, *overrides):
    return load_config(
        f"shapes/panoptic_{head}.yaml",
        [
            *("MODEL.DEVICE", "cpu", "MODEL.FPN.OUT_CHANNELS", 32, "MODEL.VGG.WIDTH", 16),
            *("MODEL.ROI_BOX_HEAD.FC_DIM", 32, "MODEL.ROI_MASK_HEAD.CONV_DIM", 16),
            *("MODEL.SEM_SEG_HEAD.CONVS_DIM", 16, "MODEL.UNET.DECODER_CHANNELS", [16, 16, 16]),
            *("MODEL.SEM_SEG_HEAD.ASPP_CHANNELS", 16, "TEST.DETECTIONS_PER_IMAGE", 12),
            *("MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH", 0.2),
            *overrides,
        ],
    )


def train(model, batch):
    with EventStorage():
        return model.train()(batch)


@torch.no_grad()
def predict(model, batch):
    return model.eval()(batch)


def pair(**overrides):
    """This package's system and Detectron2's PanopticFPN with equal weights."""
    opts = [
        *("MODEL.PANOPTIC_FPN.THING_IDS", [], "MODEL.ROI_MASK_HEAD.OUTPUT_FORMAT", "bitmask"),
        *("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0, "MODEL.ROI_POOLER", "detectron2"),
        *(part for key, value in overrides.items() for part in (key.replace("__", "."), value)),
    ]
    ours = build_model(small_config("sem_seg_fpn", *opts))
    theirs = build_model(
        small_config("sem_seg_fpn", *opts, "MODEL.META_ARCHITECTURE", "PanopticFPN")
    )
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def batch_for_detectron2():
    """Labels 0 (things), 1 and 2 (stuff) at two sizes."""
    batch = []
    for size in ((64, 96), (80, 72)):
        item = sample(size)
        labels = item["sem_seg"]
        item["sem_seg"] = torch.where(labels < 6, 0, torch.where(labels == 255, 255, labels - 5))
        batch.append({**item, "height": 97, "width": 131})
    return batch


def test_output_equals_panoptic_fpns():
    ours, theirs = pair()
    # Scores of an untrained network are all alike: spread them.
    for model in (ours, theirs):
        model.roi_heads.box_predictor.cls_score.weight.data *= 40
    batch = batch_for_detectron2()
    found, expected = (predict(model, batch) for model in (ours, theirs))
    segments = 0
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one["sem_seg"], other["sem_seg"])
        assert one["instances"].pred_masks.shape[1:] == (97, 131)
        for key, value in other["instances"].get_fields().items():
            mine = one["instances"].get(key)
            assert torch.equal(getattr(mine, "tensor", mine), getattr(value, "tensor", value)), key
        assert torch.equal(one["panoptic_seg"][0], other["panoptic_seg"][0])
        assert one["panoptic_seg"][1] == other["panoptic_seg"][1]
        segments += sum(s["isthing"] for s in other["panoptic_seg"][1])
    assert segments


def test_losses_and_gradients_equal_panoptic_fpns():
    results, batch = [], batch_for_detectron2()
    for model in pair():
        torch.manual_seed(3)
        losses = train(model, batch)
        sum(losses.values()).backward()
        grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        results.append(({k: v.detach() for k, v in losses.items()}, grads))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-3, atol=1e-5)


def test_fused_pooling_and_run_lengths_change_nothing_but_ties():
    reference = pair()[0]
    fast = build_model(
        small_config(
            "sem_seg_fpn",
            "MODEL.PANOPTIC_FPN.THING_IDS",
            [],
            "MODEL.ROI_HEADS.SCORE_THRESH_TEST",
            0.0,
        )
    )
    fast.load_state_dict(reference.state_dict())
    assert fast.mask_format == "rle"
    batch = batch_for_detectron2()
    for one, other in zip(predict(fast, batch), predict(reference, batch), strict=True):
        assert (one["panoptic_seg"][0] != other["panoptic_seg"][0]).float().mean() < 1e-3


@pytest.mark.parametrize("head", HEADS)
class TestEveryHead:
    def test_gradient_of_each_task_reaches_the_backbone(self, head):
        model = build_model(small_config(head))
        for module in model.sem_seg_head.modules():
            if getattr(module, "out_channels", None) == 8:  # zero scores let no gradient below
                torch.nn.init.normal_(module.weight, std=0.1)
        losses = train(model, [sample(), sample()])
        # The boxes are learned from regions that RPN's loss does not see, and so on.
        for name, loss in losses.items():
            model.zero_grad()
            loss.backward(retain_graph=True)
            first = next(model.backbone.bottom_up.parameters())
            assert first.grad is not None, name
            assert first.grad.any(), name
            assert first.grad.isfinite().all(), name

    def test_predicts_segments_of_every_pixel_at_odd_sizes(self, head):
        model = build_model(small_config(head))
        batch = [sample((61, 83)), {**sample((45, 70)), "height": 90, "width": 141}]
        for result, size in zip(predict(model, batch), ((61, 83), (90, 141)), strict=True):
            ids, segments = result["panoptic_seg"]
            assert ids.shape == size
            assert result["sem_seg"].shape == (8, *size)
            assert set(ids.unique().tolist()) - {0} <= {s["id"] for s in segments}
            for segment in segments:
                assert segment["isthing"] == (segment["category_id"] < 6)
        assert train(model, batch)

    def test_images_without_one_task(self, head):
        """No instance, nothing labelled, stuff alone: finite losses and gradients."""
        model = build_model(small_config(head))
        empty, unlabelled = sample(count=0), sample(count=0)
        unlabelled["sem_seg"].fill_(IGNORE)
        for batch in ([empty, empty], [unlabelled, unlabelled], [empty, sample()]):
            model.zero_grad()
            losses = train(model, batch)
            assert all(loss.isfinite() for loss in losses.values())
            sum(losses.values()).backward()
            assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
            if batch[0] is unlabelled:
                assert losses["loss_sem_seg"] == 0
        # Nothing is an instance where every score is below the threshold.
        model.combine_instances_score_thresh = 1.1
        (result,) = predict(model, [{"image": empty["image"]}])
        assert not any(s["isthing"] for s in result["panoptic_seg"][1])

    def test_autocast(self, head):
        model = build_model(small_config(head))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert all(loss.isfinite() for loss in train(model, [sample(), sample()]).values())
            assert predict(model, [sample()])[0]["sem_seg"].dtype == torch.float32


def test_checkpoint_of_panoptic_fpn_loads_key_for_key():
    ours, theirs = pair()
    state = {key: value + 1 for key, value in theirs.state_dict().items()}
    assert ours.load_state_dict(state, strict=True)


def test_weights_of_the_losses():
    batch = [sample(), sample()]
    results = []
    for opts in (
        [],
        ["MODEL.SEM_SEG_HEAD.LOSS_WEIGHT", 3.0],
        ["MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT", 0.5],
    ):
        torch.manual_seed(0)
        model = build_model(small_config("sem_seg_fpn", *opts))
        torch.manual_seed(1)
        results.append({k: v.item() for k, v in train(model, batch).items()})
    plain, semantic, instance = results
    assert semantic["loss_sem_seg"] == pytest.approx(3 * plain["loss_sem_seg"])
    assert instance["loss_mask"] == pytest.approx(0.5 * plain["loss_mask"])
    assert instance["loss_cls"] == pytest.approx(0.5 * plain["loss_cls"])
    assert semantic["loss_mask"] == pytest.approx(plain["loss_mask"])


def test_uncertainty_weighting_learns_a_weight_for_each_task():
    model = build_model(
        small_config("sem_seg_fpn", "MODEL.PANOPTIC_FPN.LOSS_WEIGHTING", "uncertainty")
    )
    losses = train(model, [sample(), sample()])
    sum(losses.values()).backward()
    weights = dict(model.weighting.named_parameters())
    assert set(weights) == {"log_variance.semantic", "log_variance.instances"}
    # d/ds at s = 0: 1/2 minus the task's losses.
    expected = 0.5 - losses["loss_sem_seg"]
    torch.testing.assert_close(weights["log_variance.semantic"].grad, expected.detach())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("MODEL.SEM_SEG_HEAD.NAME", "SemSegSegNetHead"), "set it to build_vgg_fpn_backbone"),
        (("MODEL.PANOPTIC_FPN.THING_IDS", [0, 1]), "must be 6 different labels below 8"),
        (("MODEL.MASK_ON", False), "set MODEL.MASK_ON True"),
        (("MODEL.BACKBONE.NAME", "build_resnet_backbone"), "builds no pyramid"),
        (
            ("MODEL.SEM_SEG_HEAD.NAME", "SemSegUNetHead", "MODEL.UNET.PADDING", "valid"),
            "set MODEL.UNET.PADDING same",
        ),
    ],
)
def test_parts_that_do_not_fit(overrides, message):
    with pytest.raises(ConfigError, match=f"(?i){message}"):
        build_model(small_config("sem_seg_fpn", *overrides))


def test_sample_without_labels():
    model = build_model(small_config("sem_seg_fpn"))
    item = {**sample(), "file_name": "street.jpg"}
    del item["sem_seg"]
    with pytest.raises(ValueError, match=r"street.jpg has no 'sem_seg'"):
        train(model, [item])


def test_label_outside_the_classes():
    model = build_model(small_config("sem_seg_fpn"))
    item = sample()
    item["sem_seg"][0, 0] = 9
    with pytest.raises(ValueError, match="label 9 in 1 pixels"):
        train(model, [item])
