"""Mask R-CNN (He et al., 2017) with ResNet-C4 or FPN: Detectron2's, with this package's pooling.

Both systems are ``GeneralizedRCNN`` with its parameters' names, so that state dicts of Detectron2's
model zoo load key for key. They check that the configuration's parts belong together, pool by
:class:`~seg_plugins.modeling.roi_pooler.FusedROIPooler`, and can hand on masks as run lengths.
"""

from __future__ import annotations

from typing import Any, ClassVar

from detectron2.config import CfgNode, configurable
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Instances
from torch import nn

from ...config import ConfigError
from ...ops.mask_paste import paste_masks
from ..roi_pooler import POOLER_TYPES, FusedROIPooler
from ..sem_seg_heads.base import ScoreConv2d

POOLERS = ("fused", "detectron2")
MASK_FORMATS = ("bitmask", "rle")

# Types that Detectron2's own pooler lacks, and the one it builds in their place.
_STAND_IN = {"ROIAlignMax": "ROIAlignV2"}

# The attributes under which Detectron2's RoI heads keep poolers, and the key of each one's type.
_POOLER_KEYS = {
    "pooler": "ROI_BOX_HEAD",
    "box_pooler": "ROI_BOX_HEAD",
    "mask_pooler": "ROI_MASK_HEAD",
    "keypoint_pooler": "ROI_KEYPOINT_HEAD",
}


class _RegionSystem(GeneralizedRCNN):
    """What both forms of Mask R-CNN share; Faster R-CNN by ``MODEL.MASK_ON: False``."""

    tasks: ClassVar[tuple[str, ...]] = ("instances",)

    @configurable
    def __init__(self, *, mask_format: str = "bitmask", **parts: Any) -> None:
        """Join the parts.

        Args:
            mask_format: ``bitmask``: ``pred_masks`` is (N, height, width) bool, as Detectron2's.
                ``rle``: a :class:`~seg_plugins.ops.run_length.RunLengthMasks` of the same pixels,
                which takes the memory of the outlines.
            parts: of :class:`detectron2.modeling.GeneralizedRCNN`.

        Raises:
            ValueError: an unknown `mask_format`.
        """
        super().__init__(**parts)
        if mask_format not in MASK_FORMATS:
            raise ValueError(f"mask_format must be one of {MASK_FORMATS}, got {mask_format!r}")
        self.mask_format = mask_format
        if self.proposal_generator is not None:
            keep_scores_in_float32(self.proposal_generator)
        keep_scores_in_float32(self.roi_heads)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Arguments from ``MODEL``.

        Raises:
            ConfigError: backbone, RoI heads and pooler do not belong together.
        """
        cls.check(cfg)
        _check_poolers(cfg)
        buildable = cfg.clone()
        buildable.defrost()
        for key in set(_POOLER_KEYS.values()):
            kind = buildable.MODEL[key].POOLER_TYPE
            buildable.MODEL[key].POOLER_TYPE = _STAND_IN.get(kind, kind)
        parts = super().from_config(buildable)
        if cfg.MODEL.ROI_POOLER == "fused":
            _fuse_poolers(parts["roi_heads"], cfg)
        return {**parts, "mask_format": cfg.MODEL.ROI_MASK_HEAD.OUTPUT_FORMAT}

    @classmethod
    def check(cls, cfg: CfgNode) -> None:
        """Raise ConfigError unless backbone and RoI heads are this system's."""
        raise NotImplementedError

    def inference(
        self,
        batched_inputs: list[dict[str, Any]],
        detected_instances: list[Instances] | None = None,
        do_postprocess: bool = True,
    ) -> Any:
        """Detectron2's, with masks in this system's format.

        Args:
            batched_inputs: one dict per image: ``image`` (C, H, W), ``height`` and ``width`` of the
                wanted output.
            detected_instances: boxes to predict masks for, instead of the model's own.
            do_postprocess: bring the results to the wanted size.

        Returns:
            One dict per image with ``instances``: ``pred_boxes``, ``scores``, ``pred_classes`` and
            ``pred_masks``; without post-processing the Instances at the network's size.
        """
        if self.mask_format == "bitmask" or not do_postprocess:
            return super().inference(batched_inputs, detected_instances, do_postprocess)
        found = super().inference(batched_inputs, detected_instances, do_postprocess=False)
        results = []
        for sample, instances in zip(batched_inputs, found, strict=True):
            size = instances.image_size
            height, width = sample.get("height", size[0]), sample.get("width", size[1])
            results.append({"instances": postprocess_to_run_lengths(instances, height, width)})
        return results


class MaskRCNNC4(_RegionSystem):
    """One feature map of stride 16; the last stage runs on each region (appendix of ResNet)."""

    @classmethod
    def check(cls, cfg: CfgNode) -> None:
        """Raise ConfigError unless one feature map goes to Res5ROIHeads."""
        model = cfg.MODEL
        if model.ROI_HEADS.NAME != "Res5ROIHeads" or len(model.ROI_HEADS.IN_FEATURES) != 1:
            raise ConfigError(
                "MODEL.META_ARCHITECTURE MaskRCNNC4 goes with MODEL.ROI_HEADS.NAME Res5ROIHeads "
                f"and one feature; got {model.ROI_HEADS.NAME} on {model.ROI_HEADS.IN_FEATURES}. "
                "Start from configs/_base_/mask_rcnn_c4.yaml, or choose MaskRCNNFPN."
            )
        if "fpn" in model.BACKBONE.NAME:
            raise ConfigError(
                f"MODEL.BACKBONE.NAME {model.BACKBONE.NAME} builds a pyramid, MaskRCNNC4 takes one "
                "map: use build_resnet_backbone, or choose MaskRCNNFPN."
            )


class MaskRCNNFPN(_RegionSystem):
    """A feature pyramid (Lin et al., 2017); each region is pooled from the level of its size."""

    @classmethod
    def check(cls, cfg: CfgNode) -> None:
        """Raise ConfigError unless a pyramid goes to heads that pool from one."""
        model = cfg.MODEL
        if model.ROI_HEADS.NAME == "Res5ROIHeads" or len(model.ROI_HEADS.IN_FEATURES) < 2:
            raise ConfigError(
                "MODEL.META_ARCHITECTURE MaskRCNNFPN goes with MODEL.ROI_HEADS.NAME "
                "StandardROIHeads (or CascadeROIHeads) on p2 to p5; got "
                f"{model.ROI_HEADS.NAME} on {model.ROI_HEADS.IN_FEATURES}. "
                "Start from configs/_base_/mask_rcnn_fpn.yaml, or choose MaskRCNNC4."
            )
        if "fpn" not in model.BACKBONE.NAME:
            raise ConfigError(
                f"MODEL.BACKBONE.NAME {model.BACKBONE.NAME} builds no pyramid: use "
                "build_resnet_fpn_backbone or build_timm_fpn_backbone, or choose MaskRCNNC4."
            )


def _check_poolers(cfg: CfgNode) -> None:
    model = cfg.MODEL
    if model.ROI_POOLER not in POOLERS:
        raise ConfigError(
            f"MODEL.ROI_POOLER must be {' or '.join(POOLERS)}, not {model.ROI_POOLER!r}"
        )
    if model.ROI_MASK_HEAD.OUTPUT_FORMAT not in MASK_FORMATS:
        raise ConfigError(
            f"MODEL.ROI_MASK_HEAD.OUTPUT_FORMAT must be {' or '.join(MASK_FORMATS)}, "
            f"not {model.ROI_MASK_HEAD.OUTPUT_FORMAT!r}"
        )
    keys = ["ROI_BOX_HEAD", "ROI_MASK_HEAD"] if model.MASK_ON else ["ROI_BOX_HEAD"]
    for key in keys:
        kind = model[key].POOLER_TYPE
        known = [k for k in POOLER_TYPES if model.ROI_POOLER == "fused" or k not in _STAND_IN]
        if kind not in known:
            raise ConfigError(
                f"MODEL.{key}.POOLER_TYPE {kind!r} with MODEL.ROI_POOLER {model.ROI_POOLER}: "
                f"choose one of {', '.join(known)}"
            )


# As many outputs as one pixel's objectness, box deltas or classes of a small dataset.
_FEW_OUTPUTS = 15


def keep_scores_in_float32(module: nn.Module) -> None:
    """Take 1x1 convolutions to a few scores out of autocast; see ScoreConv2d for why.

    Their class changes and nothing else, so that parameters keep their names.
    """
    for conv in module.modules():
        plain = isinstance(conv, nn.Conv2d) and not getattr(conv, "norm", None)
        if not plain or getattr(conv, "activation", None) is not None:
            continue
        if conv.kernel_size == (1, 1) and conv.out_channels <= _FEW_OUTPUTS:
            conv.__class__ = ScoreConv2d


def _fuse_poolers(roi_heads: nn.Module, cfg: CfgNode) -> None:
    """Put this package's pooler in the place of each of Detectron2's."""
    for name, key in _POOLER_KEYS.items():
        pooler = getattr(roi_heads, name, None)
        if not isinstance(pooler, ROIPooler):
            continue
        levels = list(pooler.level_poolers)
        fused = FusedROIPooler(
            output_size=pooler.output_size,
            scales=[level.spatial_scale for level in levels],
            sampling_ratio=getattr(levels[0], "sampling_ratio", 0),  # RoIPool has none
            pooler_type=cfg.MODEL[key].POOLER_TYPE,
            canonical_box_size=pooler.canonical_box_size,
            canonical_level=pooler.canonical_level,
        )
        setattr(roi_heads, name, fused)


def postprocess_to_run_lengths(instances: Instances, height: int, width: int) -> Instances:
    """Detectron2's ``detector_postprocess`` with masks encoded instead of painted.

    Args:
        instances: at the network's size, ``pred_masks`` (N, 1, M, M) probabilities if any; its
            boxes are changed in place, as by Detectron2.
        height: Rows of the wanted output.
        width: Columns of the wanted output.

    Returns:
        Instances of that size, without those whose box is empty; ``pred_masks`` is
        :class:`~seg_plugins.ops.run_length.RunLengthMasks`.
    """
    fields = instances.get_fields()
    small = Instances(
        instances.image_size, **{k: v for k, v in fields.items() if k != "pred_masks"}
    )
    if "pred_masks" in fields:
        # Under another name they pass through, and lose the same instances.
        small.set("mask_probabilities", fields["pred_masks"])
    results = detector_postprocess(small, height, width)
    if results.has("mask_probabilities"):
        masks = results.get("mask_probabilities")[:, 0]
        results.remove("mask_probabilities")
        results.pred_masks = paste_masks(masks, results.pred_boxes.tensor, height, width)
    return results
