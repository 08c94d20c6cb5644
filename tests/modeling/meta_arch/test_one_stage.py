"""The frame of the one-stage systems: how its parts are joined, sizes, truth, and panoptic."""

from __future__ import annotations

import copy

from seg_plugins import load_config
from seg_plugins.config import ConfigError
from seg_plugins.modeling.instance_representations import Truth
from seg_plugins.modeling.meta_arch.one_stage import OneStageInstanceSegmentor, equal_sizes
from seg_plugins.modeling.meta_arch.panoptic import OneStagePanopticSegmentor, PanopticSegmentor
from seg_plugins.modeling.panoptic_merging import merge_panoptic
from seg_plugins.testing.samples import instance_sample, semantic_sample

import pytest
import torch
from detectron2.modeling import build_model
from torch import nn

SMALL = ["MODEL.DEVICE", "cpu", "MODEL.FPN.OUT_CHANNELS", 16, "MODEL.SOLOV2.INSTANCE_CHANNELS", 16]
NAMED = "MODEL.ONE_STAGE.REPRESENTATION"


def build(*opts, config: str = "shapes/solo_v2_r18.yaml") -> nn.Module:
    torch.manual_seed(0)
    return build_model(load_config(config, [*SMALL, *opts]))


def image(height: int = 64, width: int = 96) -> dict:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
    return {"image": pixels}


def lively(model: nn.Module) -> nn.Module:
    """Random weights that see something."""
    for module in model.representation.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    return model.eval()


def test_the_configuration_names_any_representation():
    general = build("MODEL.META_ARCHITECTURE", "OneStageInstanceSegmentor", NAMED, "SOLOv2")
    assert type(general) is OneStageInstanceSegmentor
    named = build()
    assert list(general.state_dict()) == list(named.state_dict())


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        ([NAMED, "SOLO"], "SOLOv2 has the representation SOLOv2, not SOLO"),
        (
            ["MODEL.META_ARCHITECTURE", "OneStageInstanceSegmentor", NAMED, "Solo"],
            "'Solo' is unknown; known are .*SOLO, SOLOv2, YOLACT",
        ),
        (["MODEL.MASK_ON", False], "set MODEL.MASK_ON True"),
        (["MODEL.ROI_MASK_HEAD.OUTPUT_FORMAT", "polygon"], "bitmask or rle, not 'polygon'"),
    ],
)
def test_parts_that_do_not_fit_are_named(opts, message):
    with pytest.raises(ConfigError, match=message):
        build(*opts)


def test_a_timm_pyramid():
    model = build(
        *("MODEL.BACKBONE.NAME", "build_timm_fpn_backbone", "MODEL.TIMM.NAME", "resnet18"),
        *("MODEL.TIMM.OUT_FEATURES", ["res2", "res3", "res4", "res5"], "MODEL.FPN.NORM", "BN"),
    )
    losses = model.train()([instance_sample(64, 96, 6)])
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_from_parts():
    parts = build()
    model = OneStageInstanceSegmentor(
        backbone=parts.backbone,
        representation=lively(parts).representation,
        pixel_mean=[100.0, 100, 100],
        pixel_std=[50.0, 50, 50],
    )
    with torch.no_grad():
        (found,) = model.eval()([{**image(), "height": 32, "width": 48}])
    assert len(found["instances"])
    assert found["instances"].pred_masks.shape == (len(found["instances"]), 32, 48)


def test_images_of_equal_padded_size_go_together():
    images = [torch.ones(1, *size) for size in ((5, 8), (16, 8), (8, 8), (8, 3))]
    groups = equal_sizes(images, 8)
    assert [places for _, places in groups] == [[0, 2, 3], [1]]
    (batch, _), _ = groups
    assert batch.tensor.shape == (3, 1, 8, 8)
    assert batch.image_sizes == [(5, 8), (8, 8), (8, 3)]
    assert batch.tensor.sum() == 5 * 8 + 8 * 8 + 8 * 3
    assert [places for _, places in equal_sizes(images, 0)] == [[0], [1], [2], [3]]


def test_polygons_are_painted():
    bits, polygons = (instance_sample(48, 64, 6, polygons=p)["instances"] for p in (False, True))
    device = torch.device("cpu")
    assert Truth(polygons, device).bitmasks.equal(Truth(bits, device).bitmasks)
    assert Truth(polygons, device).areas.tolist() == Truth(bits, device).areas.tolist()


def test_centres_of_mass_by_hand():
    truth = Truth(instance_sample(48, 64, 6, count=1)["instances"], torch.device("cpu"))
    # Rows 0 to 16, columns 0 to 21.
    assert truth.boxes.tolist() == [[0, 0, 22, 17]]
    assert truth.centers.tolist() == [[11.0, 8.5]]


class TestPanoptic:
    """A representation in Mask R-CNN's place."""

    config = "shapes/panoptic_solo_v2.yaml"

    def test_the_key_chooses_the_system(self):
        assert type(build(config=self.config)) is OneStagePanopticSegmentor
        assert type(build(NAMED, "", config=self.config)) is PanopticSegmentor
        model = build(config=self.config)
        assert list(copy.deepcopy(model).state_dict()) == list(model.state_dict())

    def test_it_merges_what_its_parts_find(self):
        model = lively(build("MODEL.ROI_MASK_HEAD.OUTPUT_FORMAT", "bitmask", config=self.config))
        item = {**image(), "height": 70, "width": 90}
        with torch.no_grad():
            (whole,) = model([item])
            images = model.preprocess_image([item])
            found = model.find(images, model.backbone(images.tensor))
        instances = model.finish(found[0], 70, 90)
        assert len(instances)
        assert whole["instances"].pred_masks.equal(instances.pred_masks)
        ids, segments = merge_panoptic(
            instances,
            whole["sem_seg"].argmax(dim=0),
            8,
            thing_ids=model.thing_ids,
            overlap_threshold=model.combine_overlap_thresh,
            stuff_area_threshold=model.combine_stuff_area_thresh,
            score_threshold=model.combine_instances_score_thresh,
        )
        assert whole["panoptic_seg"][0].equal(ids)
        assert whole["panoptic_seg"][1] == segments

    def test_instance_losses_are_scaled(self):
        opts = ("MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT", 0.25)
        item = {
            **instance_sample(64, 96, 6),
            "sem_seg": semantic_sample(64, 96, 8)["sem_seg"],
        }
        plain, scaled = (
            build(*more, config=self.config).train()([copy.deepcopy(item)]) for more in ((), opts)
        )
        for name in ("loss_category", "loss_mask"):
            torch.testing.assert_close(scaled[name], plain[name] * 0.25)
        torch.testing.assert_close(scaled["loss_sem_seg"], plain["loss_sem_seg"])
