"""Heads whose layers cannot be run by themselves are named."""

from __future__ import annotations

from seg_plugins import load_config
from seg_plugins.config import ConfigError
from seg_plugins.modeling.analysis import analyze

import pytest
import torch
from detectron2.modeling import ROI_MASK_HEAD_REGISTRY, SEM_SEG_HEADS_REGISTRY
from detectron2.modeling.roi_heads import BaseMaskRCNNHead
from torch import nn


def analyzed(name: str, *opts: str) -> list:
    return analyze(load_config(name, opts), 64, 64)


class _WithoutLayers(nn.Module):
    def __init__(self, cfg, input_shape) -> None:
        super().__init__()


class _AbstractLayers(BaseMaskRCNNHead):
    def __init__(self, cfg, input_shape) -> None:
        super().__init__()


class _OfData(_AbstractLayers):
    def layers(self, x: torch.Tensor) -> torch.Tensor:
        return x.nonzero()


@pytest.mark.parametrize(
    ("name", "head", "reason"),
    [
        ("mask_rcnn_r18_fpn.yaml", _WithoutLayers, "no method `layers`"),
        ("mask_rcnn_r18_c4.yaml", _WithoutLayers, "no method `layers`"),
        ("mask_rcnn_r18_fpn.yaml", _AbstractLayers, "NotImplementedError"),
        ("mask_rcnn_r18_fpn.yaml", _OfData, "nonzero"),
    ],
)
def test_mask_heads_that_cannot_be_run_alone_are_named(name, head, reason, monkeypatch) -> None:
    monkeypatch.setitem(ROI_MASK_HEAD_REGISTRY._obj_map, "Mine", head)
    opts = ("MODEL.META_ARCHITECTURE", "GeneralizedRCNN", "MODEL.ROI_MASK_HEAD.NAME", "Mine")
    with pytest.raises(ConfigError, match=f"{head.__name__} cannot be analysed: .*{reason}"):
        analyzed(f"shapes/{name}", *opts)


def test_a_mask_head_of_whole_maps_is_named(monkeypatch) -> None:
    monkeypatch.setitem(ROI_MASK_HEAD_REGISTRY._obj_map, "Mine", _OfData)
    opts = ("MODEL.META_ARCHITECTURE", "GeneralizedRCNN", "MODEL.ROI_MASK_HEAD.NAME", "Mine")
    with pytest.raises(ConfigError, match="_OfData cannot be analysed: it does not take regions"):
        analyzed("shapes/mask_rcnn_r18_fpn.yaml", *opts, "MODEL.ROI_MASK_HEAD.POOLER_TYPE", "")


def test_a_semantic_head_that_cannot_be_run_alone_is_named(monkeypatch) -> None:
    monkeypatch.setitem(SEM_SEG_HEADS_REGISTRY._obj_map, "Mine", _WithoutLayers)
    opts = ("MODEL.META_ARCHITECTURE", "SemanticSegmentor", "MODEL.SEM_SEG_HEAD.NAME", "Mine")
    with pytest.raises(ConfigError, match="_WithoutLayers cannot be analysed"):
        analyzed("camvid/segnet_basic.yaml", *opts)
