"""The branches of RoI heads as functions of feature maps, for a given number of regions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling.roi_heads import Res5ROIHeads, StandardROIHeads
from torch import Tensor, nn

from ..config import ConfigError

Features = dict[str, Tensor]


@dataclass(frozen=True)
class Branch:
    """What RoI heads compute of some regions.

    Attributes:
        name: for a table.
        parts: the modules whose parameters the branch adds.
        run: from the backbone's features; boxes do not matter, regions are zeros.
        regions: how many.
    """

    name: str
    parts: Sequence[nn.Module]
    run: Callable[[Features], Any]
    regions: int


def branches(cfg: CfgNode, heads: nn.Module) -> Iterator[Branch]:
    """Boxes, masks and key points, as far as the heads have them.

    The box branch gets ``MODEL.RPN.POST_NMS_TOPK_TEST`` regions, the others
    ``TEST.DETECTIONS_PER_IMAGE``: as many as an image can have at test.

    Args:
        cfg: the configuration.
        heads: ``Res5ROIHeads``, ``StandardROIHeads`` or a subclass.

    Raises:
        ConfigError: heads of another kind.
    """
    proposals, detections = cfg.MODEL.RPN.POST_NMS_TOPK_TEST, cfg.TEST.DETECTIONS_PER_IMAGE
    if isinstance(heads, Res5ROIHeads):
        yield from _of_one_map(heads, proposals, detections)
    elif isinstance(heads, StandardROIHeads):
        yield from _of_pyramid(heads, proposals, detections)
    else:
        raise ConfigError(
            f"MODEL.ROI_HEADS.NAME {cfg.MODEL.ROI_HEADS.NAME} cannot be analysed: it is neither "
            "Res5ROIHeads nor StandardROIHeads"
        )


def scores_of(head: nn.Module, features: Any) -> Tensor:
    """What a mask, key point or semantic head computes before losses and results.

    Raises:
        ConfigError: the head has no `layers`.
    """
    if not hasattr(head, "layers"):
        raise ConfigError(
            f"{type(head).__name__} cannot be analysed: it has no method `layers` from features to "
            "scores"
        )
    return head.layers(features)


def _of_one_map(heads: Res5ROIHeads, proposals: int, detections: int) -> Iterator[Branch]:
    def shared(features: Features, count: int) -> Tensor:
        return heads.res5(_pooled(heads.pooler, features, heads.in_features, count))

    yield Branch(
        "boxes",
        [heads.res5, heads.box_predictor],
        lambda features: heads.box_predictor(shared(features, proposals).mean(dim=(2, 3))),
        proposals,
    )
    if heads.mask_on:  # the last stage runs again, on the boxes that were found
        yield Branch(
            "masks",
            [heads.mask_head],
            lambda features: scores_of(heads.mask_head, shared(features, detections)),
            detections,
        )


def _of_pyramid(heads: StandardROIHeads, proposals: int, detections: int) -> Iterator[Branch]:
    parts = [heads.box_head, heads.box_predictor]

    def boxes(features: Features) -> list[Any]:
        regions = _pooled(heads.box_pooler, features, heads.box_in_features, proposals)
        # A cascade has a list of each.
        stages = zip(*([*p] if isinstance(p, nn.ModuleList) else [p] for p in parts), strict=True)
        return [predictor(head(regions)) for head, predictor in stages]

    yield Branch("boxes", parts, boxes, proposals)
    for kind in ("mask", "keypoint"):
        if getattr(heads, f"{kind}_on"):
            head = getattr(heads, f"{kind}_head")
            yield Branch(
                f"{kind}s", [head], partial(_instances, heads, kind, detections), detections
            )


def _instances(heads: StandardROIHeads, kind: str, count: int, features: Features) -> Tensor:
    pooler, names = getattr(heads, f"{kind}_pooler"), getattr(heads, f"{kind}_in_features")
    head = getattr(heads, f"{kind}_head")
    if pooler is None:
        raise ConfigError(f"{type(head).__name__} cannot be analysed: it does not take regions")
    return scores_of(head, _pooled(pooler, features, names, count))


def _pooled(pooler: nn.Module, features: Features, names: Sequence[str], count: int) -> Tensor:
    feature = features[names[0]]
    return feature.new_zeros(count, feature.shape[1], *pooler.output_size)
