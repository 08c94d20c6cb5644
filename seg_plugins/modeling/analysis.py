"""Parameters, multiply-adds and activation memory of a model's parts, computed without data.

Everything runs on PyTorch's meta device: shapes only, so that the largest model takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..config import ConfigError
from .meta_arch.patch_classifier import PatchClassifier
from .meta_arch.semantic import SemanticSystem


@dataclass(frozen=True)
class PartReport:
    """One row.

    Attributes:
        name: ``backbone``, ``sem_seg_head`` or ``total``.
        parameters: number of parameters, trainable or not.
        multiply_adds: of convolutions and matrix products; bilinear resizing counts nothing.
        activation_bytes: tensors kept for the backward pass of one float32 image, parameters and
            input excluded.
    """

    name: str
    parameters: int
    multiply_adds: int
    activation_bytes: int


def analyze(cfg: CfgNode, height: int, width: int) -> list[PartReport]:
    """Rows for backbone and head of a semantic system and their sum, for one image.

    Args:
        cfg: the configuration; its device and weights are not used.
        height: image height; networks without padding get the mirrored border they need.
        width: image width.

    Raises:
        ConfigError: the meta-architecture is not a semantic system.
    """
    cfg = _without_data(cfg)
    with torch.device("meta"):
        model = build_model(cfg)
        if not isinstance(model, SemanticSystem):
            raise ConfigError(
                f"MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE} is not a semantic system"
            )
        image = model.extended(torch.zeros(1, len(cfg.MODEL.PIXEL_MEAN), height, width))
        model.train()
        features, backbone = _measure("backbone", model.backbone, image)
        _, head = _measure("sem_seg_head", model.sem_seg_head, features, _scores)
    total = PartReport("total", *(_sum(column, backbone, head) for column in _COLUMNS))
    return [backbone, head, total]


def _without_data(cfg: CfgNode) -> CfgNode:
    """A copy that builds on the meta device, without weights or class counts."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "meta"
    cfg.MODEL.TIMM.PRETRAINED = False
    cfg.MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS = None
    # SyncBN has no kernel for shapes alone; the counts are the same.
    for node in (cfg.MODEL.RESNETS, cfg.MODEL.SEM_SEG_HEAD, cfg.MODEL.TIMM):
        node.NORM = {"SyncBN": "" if node is cfg.MODEL.TIMM else "BN"}.get(node.NORM, node.NORM)
    return cfg


_COLUMNS = ("parameters", "multiply_adds", "activation_bytes")


def _sum(column: str, *reports: PartReport) -> int:
    return sum(getattr(report, column) for report in reports)


def _scores(head: Any, features: Any) -> Tensor:
    return head.upsample(head.layers(features))


def _call(part: nn.Module, inputs: Any) -> Any:
    return part(inputs)


def _measure(
    name: str, part: nn.Module, inputs: Any, run: Callable[[Any, Any], Any] = _call
) -> tuple[Any, PartReport]:
    given = inputs.values() if isinstance(inputs, dict) else [inputs]
    own = {_storage(t) for t in (*part.parameters(), *part.buffers(), *given)}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        if _storage(tensor) not in own:
            kept[_storage(tensor)] = tensor
        return tensor

    counter = FlopCounterMode(display=False)
    with counter, torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = run(part, inputs)
    return outputs, PartReport(
        name=name,
        parameters=sum(p.numel() for p in part.parameters()),
        multiply_adds=counter.get_total_flops() // 2,
        activation_bytes=sum(t.untyped_storage().nbytes() for t in kept.values()),
    )


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


@dataclass(frozen=True)
class RecomputationReport:
    """What dense evaluation saves a patch classifier.

    Attributes:
        naive: multiply-adds of one forward pass per pixel.
        dense: multiply-adds of all windows at once, mirrored border included.
    """

    naive: int
    dense: int


def recomputation(cfg: CfgNode, height: int, width: int) -> RecomputationReport:
    """Count both evaluations of a ``PatchClassifier`` for one image.

    Raises:
        ConfigError: the meta-architecture is another one.
    """
    if PatchClassifier.__name__ != cfg.MODEL.META_ARCHITECTURE:
        raise ConfigError(
            "The recomputation table is for MODEL.META_ARCHITECTURE PatchClassifier, not "
            f"{cfg.MODEL.META_ARCHITECTURE}"
        )
    cfg = _without_data(cfg)
    with torch.device("meta"), torch.no_grad():
        model = build_model(cfg).eval()
        side, channels = model.backbone.window, len(cfg.MODEL.PIXEL_MEAN)
        with FlopCounterMode(display=False) as one:
            window = torch.zeros(1, channels, side, side)
            model.sem_seg_head.layers(model.backbone.classify_windows(window))
        with FlopCounterMode(display=False) as all_windows:
            model.inner_logits(model.extended(torch.zeros(1, channels, height, width)))
    return RecomputationReport(
        naive=one.get_total_flops() // 2 * height * width,
        dense=all_windows.get_total_flops() // 2,
    )
