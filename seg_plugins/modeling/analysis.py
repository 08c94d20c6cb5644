"""Parameters, multiply-adds and activation memory of a model's parts, computed without data.

Everything runs on PyTorch's meta device: shapes only, so that the largest model takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import GeneralizedRCNN, SemanticSegmentor, build_model
from detectron2.modeling.proposal_generator import RPN
from torch import Tensor, nn

from ..config import ConfigError
from .analysis_rcnn import branches, scores_of
from .meta_arch.one_stage import OneStageInstanceSegmentor
from .meta_arch.patch_classifier import PatchClassifier
from .meta_arch.semantic import SemanticSystem


@dataclass(frozen=True)
class PartReport:
    """One row.

    Attributes:
        name: the part's name in the model (of RoI heads, each branch), or ``total``.
        parameters: number of parameters, trainable or not.
        multiply_adds: of convolutions, transposed ones too, and matrix products; resizing and
            pooling count nothing.
        activation_bytes: tensors kept for the backward pass of one float32 image, parameters and
            image excluded. What several parts keep counts for the first, so that the rows add up.
        regions: how many regions the part computes; None where it takes whole maps.
    """

    name: str
    parameters: int
    multiply_adds: int
    activation_bytes: int
    regions: int | None = None


def analyze(cfg: CfgNode, height: int, width: int) -> list[PartReport]:
    """Rows for the parts of a system and their sum, for one image.

    Of one-stage systems the network at all locations is counted, not the masks of those that are
    chosen. How many regions an image has depends on what it shows; here it has the most that the
    configuration allows at test: see :func:`.analysis_rcnn.branches`.

    Args:
        cfg: the configuration of a semantic, instance or panoptic system, of this package or
            Detectron2's own; its device and weights are not used.
        height: image height; networks without padding get the mirrored border they need, feature
            pyramids an image padded to a multiple of their largest stride.
        width: image width.

    Raises:
        ConfigError: the meta-architecture is none of these, or a part's layers cannot be run by
            themselves.
    """
    cfg = _without_data(cfg)
    with torch.device("meta"):
        model = build_model(cfg)
        if not isinstance(model, SemanticSegmentor | GeneralizedRCNN | OneStageInstanceSegmentor):
            raise ConfigError(
                f"MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE} cannot be analysed: it is "
                "neither a SemanticSegmentor, a GeneralizedRCNN nor a OneStageInstanceSegmentor"
            )
        image = torch.zeros(1, len(cfg.MODEL.PIXEL_MEAN), height, width)
        rows = list(_rows(cfg, model.train(), _as_taken(model, image)))
    total = PartReport(
        name="total",
        parameters=sum(p.numel() for p in model.parameters()),
        multiply_adds=sum(row.multiply_adds for row in rows),
        activation_bytes=sum(row.activation_bytes for row in rows),
    )
    return [*rows, total]


def size_at_test(cfg: CfgNode) -> tuple[int, int]:
    """A square of ``INPUT.MIN_SIZE_TEST``; of 512 pixels where images are not resized."""
    return (cfg.INPUT.MIN_SIZE_TEST or 512,) * 2


def _without_data(cfg: CfgNode) -> CfgNode:
    """A copy that builds on the meta device, without weights or class counts."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "meta"
    cfg.MODEL.TIMM.PRETRAINED = False
    cfg.MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS = None
    # SyncBN has no kernel for shapes alone; the counts are the same.
    for node in cfg.MODEL.values():
        if isinstance(node, CfgNode) and node.get("NORM") == "SyncBN":
            node.NORM = "" if node is cfg.MODEL.TIMM else "BN"
    return cfg


def _as_taken(model: nn.Module, image: Tensor) -> Tensor:
    if isinstance(model, SemanticSystem):
        return model.extended(image)
    step = max(model.backbone.size_divisibility, 1)
    return image.new_zeros(*image.shape[:2], *(-(-size // step) * step for size in image.shape[2:]))


def _rows(cfg: CfgNode, model: nn.Module, image: Tensor) -> Iterator[PartReport]:
    meter = _Meter(model, image)
    features, row = meter.measure("backbone", [model.backbone], image, model.backbone)
    yield row
    if isinstance(model, GeneralizedRCNN):
        rpn = model.proposal_generator
        if not isinstance(rpn, RPN):
            raise ConfigError(
                f"{type(model).__name__} cannot be analysed with MODEL.PROPOSAL_GENERATOR.NAME "
                f"{cfg.MODEL.PROPOSAL_GENERATOR.NAME}: it is no RPN"
            )
        maps = [features[name] for name in rpn.in_features]
        yield meter.measure("proposal_generator", [rpn], maps, rpn.rpn_head)[1]
        for branch in branches(cfg, model.roi_heads):
            name = f"roi_heads, {branch.name}"
            _, row = meter.measure(name, branch.parts, features, branch.run, branch.regions)
            yield row
    if isinstance(model, OneStageInstanceSegmentor):
        part = model.representation
        yield meter.measure("representation", [part], features, part.layers)[1]
    for name in ("sem_seg_head", "center_head"):
        if hasattr(model, name):
            head = getattr(model, name)
            yield meter.measure(name, [head], features, partial(_upsampled, head))[1]


def _upsampled(head: Any, features: dict[str, Tensor]) -> Tensor:
    found = scores_of(head, features)
    # Detectron2's own head has none: it resizes.
    return head.upsample(found) if hasattr(head, "upsample") else found


class _Meter:
    """Runs parts of a model, one after the other, and counts."""

    def __init__(self, model: nn.Module, image: Tensor) -> None:
        given = (t.untyped_storage() for t in (*model.parameters(), *model.buffers(), image))
        # What counts no more. Held, since a storage that is gone leaves its key to another.
        self._seen = {storage._cdata: storage for storage in given}

    def measure(
        self,
        name: str,
        parts: Sequence[nn.Module],
        inputs: Any,
        run: Callable[[Any], Any],
        regions: int | None = None,
    ) -> tuple[Any, PartReport]:
        """What `run` gives for the inputs, and its row.

        Raises:
            ConfigError: abstract layers, or an operator that computes nothing from shapes alone.
        """
        kept: list[torch.UntypedStorage] = []

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in self._seen:
                self._seen[storage._cdata] = storage
                kept.append(storage)
            return tensor

        from torch.utils.flop_counter import FlopCounterMode  # imports Triton, half a second

        counter = FlopCounterMode(display=False)
        with counter, torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            try:
                outputs = run(inputs)
            except NotImplementedError as error:
                classes = ", ".join(type(part).__name__ for part in parts)
                raise ConfigError(f"{classes} cannot be analysed: {error!r}") from error
        return outputs, PartReport(
            name=name,
            parameters=sum(p.numel() for part in parts for p in part.parameters()),
            multiply_adds=counter.get_total_flops() // 2,
            activation_bytes=sum(storage.nbytes() for storage in kept),
            regions=regions,
        )


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
    from torch.utils.flop_counter import FlopCounterMode

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
