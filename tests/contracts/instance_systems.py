"""The systems of instance segmentation, small and with random weights that find something."""

from __future__ import annotations

import copy

from seg_plugins import load_config
from seg_plugins.testing.samples import instance_sample

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from torch import nn

# A configuration for each, and keys by which random weights find something.
FEW_REGIONS = [
    *("MODEL.RPN.POST_NMS_TOPK_TRAIN", 20, "MODEL.RPN.POST_NMS_TOPK_TEST", 20),
    *("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 8),
]
SYSTEMS: dict[str, tuple[str, list]] = {
    "MaskRCNNFPN": ("mask_rcnn_r18_fpn", FEW_REGIONS),
    "MaskRCNNC4": ("mask_rcnn_r18_c4", FEW_REGIONS),
    "SOLO": ("solo_r18", []),
    "SOLOv2": ("solo_v2_r18", []),
    "CondInst": ("cond_inst_r18", []),
    "PolarMask": ("polar_mask_r18", []),
    "YOLACT": ("yolact_r18", []),
    # All windows have a loss: where some are drawn, a batch in parts draws others.
    "InstanceFCN": (
        "instance_fcn_r18",
        ["MODEL.INSTANCE_FCN.NMS_PRE", 50, "MODEL.INSTANCE_FCN.WINDOWS_PER_IMAGE", 10_000],
    ),
    "AdaptIS": ("adaptis_r18", []),
}
ONE_STAGE = [name for name in SYSTEMS if not name.startswith("MaskRCNN")]
SIZE = (64, 96)


def config_of(name: str, *opts: object) -> CfgNode:
    """The configuration of a system."""
    config, more = SYSTEMS[name]
    common = ["MODEL.DEVICE", "cpu", "TEST.DETECTIONS_PER_IMAGE", 10]
    options = [*common, "INPUT.MASK_FORMAT", "bitmask", *more, *opts]
    return load_config(f"shapes/{config}.yaml", options)


def build(name: str, *opts: object) -> nn.Module:
    """A system with random weights that see something everywhere."""
    torch.manual_seed(0)
    model = build_model(config_of(name, *opts))
    for module in getattr(model, "representation", nn.Identity()).modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.5)
    # The statistics of a trained network, roughly: else maps grow from layer to layer.
    with torch.no_grad(), EventStorage():
        model.train()([sample(), sample()])
    return model


def sample(height: int = SIZE[0], width: int = SIZE[1], count: int = 3) -> dict:
    return instance_sample(height, width, 6, count=count)


def step(model: nn.Module, batch: list[dict]) -> dict[str, torch.Tensor]:
    model.train().zero_grad()
    torch.manual_seed(0)
    with EventStorage():
        losses = model(copy.deepcopy(batch))
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values()), losses
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    return losses


@torch.no_grad()
def predict(model: nn.Module, batch: list[dict]) -> list:
    return [result["instances"] for result in model.eval()(batch)]


def assert_same(found, expected, tolerance: float) -> None:
    """The same instances, but for the order of those that score the same."""
    assert len(found) == len(expected)
    assert found.image_size == expected.image_size
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=tolerance)
    masks = [np.asarray(i.pred_masks).astype(bool) for i in (found, expected)]
    used: set[int] = set()
    for index in range(len(found)):
        near = (expected.scores - found.scores[index]).abs() <= 2 * tolerance
        near &= expected.pred_classes == found.pred_classes[index]
        places = [i for i in near.nonzero()[:, 0].tolist() if i not in used]
        differing = [(masks[0][index] != masks[1][i]).mean() for i in places]
        assert differing, f"instance {index} has no partner"
        # A pixel whose probability is the threshold but for rounding.
        assert min(differing) <= 2e-3, f"instance {index}: {min(differing):.2%} of the pixels"
        used.add(places[int(np.argmin(differing))])
