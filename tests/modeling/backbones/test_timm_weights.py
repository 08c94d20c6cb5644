"""``MODEL.WEIGHTS timm://NAME``: weights are fetched by the checkpointer, not by the model."""

from __future__ import annotations

from seg_plugins import get_cfg, load_config
from seg_plugins.config import config_root
from seg_plugins.engine.checkpoint import Checkpointer, WeightsError
from seg_plugins.modeling.backbones.timm import TimmBackbone, create_timm_model

import pytest
import timm
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from torch import nn

NAME = "test_resnet"
START = {
    file.relative_to(config_root()).as_posix(): address.removeprefix("timm://")
    for file in sorted(config_root().rglob("*.yaml"))
    if (address := load_config(file).MODEL.WEIGHTS).startswith("timm://")
}


@pytest.fixture
def released(tmp_path, monkeypatch):
    """What stands for timm's release: its weights, without a network."""
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))
    create, asked = timm.create_model, []
    state = create(NAME, features_only=True).state_dict()

    def offline(name, pretrained=False, **options):
        model = create(name, **options)
        if pretrained:
            asked.append(name)
            model.load_state_dict(state)
        return model

    monkeypatch.setattr(timm, "create_model", offline)
    return state, asked


class System(nn.Module):
    def __init__(self, backbone="build_timm_backbone"):
        super().__init__()
        cfg = get_cfg()
        cfg.MODEL.TIMM.NAME, cfg.MODEL.WEIGHTS = NAME, f"timm://{NAME}"
        cfg.MODEL.FPN.IN_FEATURES = cfg.MODEL.TIMM.OUT_FEATURES
        self.backbone = BACKBONE_REGISTRY.get(backbone)(cfg, ShapeSpec(channels=3))
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        return self.head(self.backbone(x)["res2"])


@pytest.mark.parametrize("backbone", ["build_timm_backbone", "build_timm_fpn_backbone"])
@pytest.mark.parametrize("checkpointer", [Checkpointer, DetectionCheckpointer])
def test_the_checkpointer_fetches_them_once(released, checkpointer, backbone):
    state, asked = released
    for _ in range(2):
        model = System(backbone)
        head = model.head.weight.clone()
        checkpointer(model).resume_or_load(f"timm://{NAME}", resume=False)
        trunk = model.backbone if backbone == "build_timm_backbone" else model.backbone.bottom_up
        loaded = trunk.model.state_dict()
        assert loaded.keys() <= state.keys()
        assert all(torch.equal(value, state[name]) for name, value in loaded.items())
        assert torch.equal(model.head.weight, head)
    assert asked == [NAME]


def test_an_unknown_model_is_named(released):
    with pytest.raises(WeightsError, match=r"timm://test_resnett .*Nearest: test_resnet"):
        Checkpointer(System()).load("timm://test_resnett")


def test_without_a_network_the_fix_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))
    model = System()
    create = timm.create_model

    def offline(name, pretrained=False, **options):
        if pretrained:
            raise OSError("no network")
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(WeightsError, match=r"could not be fetched.*HF_HOME.*MODEL\.WEIGHTS \"\""):
        Checkpointer(model).load(f"timm://{NAME}")


@pytest.mark.parametrize("name", START)
def test_a_shipped_configuration_finds_its_weights(name):
    cfg = load_config(name)
    assert not cfg.MODEL.TIMM.PRETRAINED
    assert START[name] == cfg.MODEL.TIMM.NAME
    options = {"name": START[name], "output_stride": cfg.MODEL.TIMM.OUTPUT_STRIDE}
    with torch.device("meta"):
        given = create_timm_model(START[name]).state_dict()
        wanted = TimmBackbone(
            **options, out_features=cfg.MODEL.TIMM.OUT_FEATURES, norm=cfg.MODEL.TIMM.NORM
        ).model.state_dict()
    assert {n: t.shape for n, t in wanted.items()}.items() <= {
        n: t.shape for n, t in given.items()
    }.items()


def test_there_are_such_configurations():
    assert len(START) == 5
