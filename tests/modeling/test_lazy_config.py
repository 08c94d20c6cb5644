"""Systems built from parts, as Detectron2's LazyConfig does it, are those of a configuration."""

from __future__ import annotations

from seg_plugins.modeling.meta_arch.mask_rcnn import MaskRCNNC4, MaskRCNNFPN
from seg_plugins.modeling.roi_pooler import FusedROIPooler
from seg_plugins.modeling.sem_seg_heads.base import ScoreConv2d

import pytest
import torch
from detectron2 import model_zoo
from detectron2.config import LazyCall, LazyConfig, instantiate
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes

SYSTEMS = {"fpn": MaskRCNNFPN, "c4": MaskRCNNC4}


def lazy_model(system, target):
    """Detectron2's own ResNet-50 model as another class."""
    file = model_zoo.get_config_file(f"common/models/mask_rcnn_{system}.py")
    model = LazyConfig.load(file).model
    model._target_ = target
    return model


def poolers(model):
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, (FusedROIPooler, ROIPooler))
    }


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_lazy_model_pools_by_the_fused_operator(system):
    with torch.device("meta"):
        ours = instantiate(lazy_model(system, SYSTEMS[system]))
        theirs = instantiate(lazy_model(system, GeneralizedRCNN))
    assert list(theirs.state_dict()) == list(ours.state_dict())
    assert isinstance(ours.proposal_generator.rpn_head.objectness_logits, ScoreConv2d)
    fused, plain = poolers(ours), poolers(theirs)
    assert len(fused) == {"fpn": 2, "c4": 1}[system]
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(30, 2, 2, generator=generator) * torch.tensor([640, 480])
    boxes = Boxes(torch.cat([corners.amin(1), corners.amax(1)], dim=1))
    for name, pooler in fused.items():
        assert isinstance(pooler, FusedROIPooler)
        sizes = [(int(480 * scale), int(640 * scale)) for scale in pooler.scales]
        maps = [torch.rand(1, 4, *size, generator=generator) for size in sizes]
        expected = plain[name](maps, [boxes])
        torch.testing.assert_close(pooler(maps, [boxes]), expected, rtol=0, atol=1e-5)


def test_an_argument_keeps_detectron2s_pooler():
    model = lazy_model("fpn", MaskRCNNFPN)
    model.roi_pooler = "detectron2"
    with torch.device("meta"):
        assert {type(p) for p in poolers(instantiate(model)).values()} == {ROIPooler}


def test_a_pooler_of_the_users_own_stays():
    model = lazy_model("fpn", MaskRCNNFPN)
    model.roi_heads.mask_pooler = LazyCall(FusedROIPooler)(
        output_size=14, scales=[1 / 4, 1 / 8, 1 / 16, 1 / 32], sampling_ratio=0,
        pooler_type="ROIAlignMax",
    )  # fmt: skip
    model.roi_heads.box_pooler.pooler_type = "ROIAlign"
    with torch.device("meta"):
        heads = instantiate(model).roi_heads
    assert heads.mask_pooler.pooler_type == "ROIAlignMax"
    assert heads.box_pooler.pooler_type == "ROIAlign"


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [("roi_pooler", "fast", "fused or detectron2"), ("mask_format", "polygon", "bitmask or rle")],
)
def test_unknown_choices_are_named(argument, value, message):
    model = lazy_model("fpn", MaskRCNNFPN)
    model[argument] = value
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        instantiate(model)
