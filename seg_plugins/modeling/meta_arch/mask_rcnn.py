"""Mask R-CNN (He et al., 2017) with ResNet-C4 or FPN: Detectron2's, with this package's pooling.

Both systems are ``GeneralizedRCNN`` with its parameters' names, so that state dicts of Detectron2's
model zoo load key for key. They pool by :class:`~seg_plugins.modeling.roi_pooler.FusedROIPooler`,
whether built from a configuration or from parts (LazyConfig), and can hand on masks as run lengths.
"""

from __future__ import annotations

from typing import Any, ClassVar

from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import ImageList, Instances
from torch import Tensor, nn

from ...config import ConfigError
from ...ops.mask_paste import paste_masks
from ..loss_terms import Losses
from ..roi_pooler import POOLER_TYPES, FusedROIPooler, fuse_poolers
from ..sem_seg_heads.base import ScoreConv2d
from ..test_time.regions import Look, find_regions
from ..test_time.views import View, Views

Features = dict[str, Tensor]

POOLERS = ("fused", "detectron2")
MASK_FORMATS = ("bitmask", "rle")

# A type of POOLER_TYPE that Detectron2's own pooler lacks.
_MAXIMUM = "ROIAlignMax"

# The attributes under which Detectron2's RoI heads keep poolers, and the key of each one's type.
_POOLER_KEYS = {
    "pooler": "ROI_BOX_HEAD",
    "box_pooler": "ROI_BOX_HEAD",
    "mask_pooler": "ROI_MASK_HEAD",
    "keypoint_pooler": "ROI_KEYPOINT_HEAD",
}


class _RCNN(GeneralizedRCNN):
    """What both forms of Mask R-CNN share; Faster R-CNN by ``MODEL.MASK_ON: False``."""

    tasks: ClassVar[tuple[str, ...]] = ("instances",)

    @configurable
    def __init__(
        self, *, roi_pooler: str = "fused", mask_format: str = "bitmask", **parts: Any
    ) -> None:
        """Join the parts.

        Args:
            roi_pooler: ``fused``: each ``ROIPooler`` of the RoI heads is replaced by a
                :class:`~seg_plugins.modeling.roi_pooler.FusedROIPooler` with its settings.
                ``detectron2``: they stay.
            mask_format: ``bitmask``: ``pred_masks`` is (N, height, width) bool, as Detectron2's.
                ``rle``: a :class:`~seg_plugins.ops.run_length.RunLengthMasks` of the same pixels,
                which takes the memory of the outlines.
            parts: of :class:`detectron2.modeling.GeneralizedRCNN`.

        Raises:
            ConfigError: an unknown `roi_pooler` or `mask_format`.
        """
        super().__init__(**parts)
        _check_choice("MODEL.ROI_POOLER", roi_pooler, POOLERS)
        _check_choice("MODEL.ROI_MASK_HEAD.OUTPUT_FORMAT", mask_format, MASK_FORMATS)
        self.mask_format = mask_format
        if roi_pooler == "fused":
            fuse_poolers(self.roi_heads)
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
        maxima = [n for n, key in _POOLER_KEYS.items() if cfg.MODEL[key].POOLER_TYPE == _MAXIMUM]
        parts = super().from_config(_averaging(cfg) if maxima else cfg)
        heads = parts["roi_heads"]
        for name in maxima:
            if isinstance(pooler := getattr(heads, name, None), ROIPooler):
                setattr(heads, name, FusedROIPooler.like(pooler, _MAXIMUM))
        return {
            **parts,
            "roi_pooler": cfg.MODEL.ROI_POOLER,
            "mask_format": cfg.MODEL.ROI_MASK_HEAD.OUTPUT_FORMAT,
        }

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
        return [
            {"instances": self.finish(instances, *wanted_size(sample, instances.image_size))}
            for sample, instances in zip(batched_inputs, found, strict=True)
        ]

    def predict_views(self, views: Views) -> dict[str, Any]:
        """``instances`` of an image by its views: see :mod:`~..test_time.regions`."""

        def look(view: View) -> Instances:
            return self.inference([view.sample], do_postprocess=False)[0]

        return {"instances": self.find_in_views(views, look)}

    # --- what a panoptic system needs of a system of instances: see `panoptic.PanopticMerging`

    @property
    def num_things(self) -> int:
        """Classes of instances."""
        return self.roi_heads.num_classes

    def batches(self, samples: list[dict[str, Any]]) -> list[tuple[ImageList, list[int]]]:
        """The images, together: as Detectron2's systems take them."""
        return [(self.preprocess_image(samples), list(range(len(samples))))]

    def instance_losses(
        self, images: ImageList, features: Features, samples: list[dict[str, Any]], weight: float
    ) -> Losses:
        """Losses of proposals and regions; `weight` is the factor of the regions'."""
        instances = [sample["instances"].to(self.device) for sample in samples]
        proposals, losses = self.proposal_generator(images, features, instances)
        _, of_regions = self.roi_heads(images, features, proposals, instances)
        return Losses(losses).joined({name: loss * weight for name, loss in of_regions.items()})

    def find(self, images: ImageList, features: Features) -> list[Instances]:
        """The instances of each image at the network's size, masks inside their boxes."""
        proposals, _ = self.proposal_generator(images, features, None)
        return self.roi_heads(images, features, proposals, None)[0]

    def finish(self, instances: Instances, height: int, width: int) -> Instances:
        """The instances at another size, with masks in this system's format."""
        rle = self.mask_format == "rle"
        return (postprocess_to_run_lengths if rle else detector_postprocess)(
            instances, height, width
        )

    def find_in_views(self, views: Views, look: Look) -> Instances:
        """The instances at the size of the output, by what `look` gives of each view."""
        return self.finish(find_regions(self, views, look), views.height, views.width)


class MaskRCNNC4(_RCNN):
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


class MaskRCNNFPN(_RCNN):
    """A feature pyramid (Lin et al., 2017); each region is pooled from the level of its size."""

    @classmethod
    def check(cls, cfg: CfgNode) -> None:
        """Raise ConfigError unless a pyramid goes to heads that pool from one."""
        model = cfg.MODEL
        if model.ROI_HEADS.NAME == "Res5ROIHeads" or len(model.ROI_HEADS.IN_FEATURES) < 2:
            raise ConfigError(
                f"MODEL.META_ARCHITECTURE {model.META_ARCHITECTURE} goes with MODEL.ROI_HEADS.NAME "
                "StandardROIHeads (or CascadeROIHeads) on p2 to p5; got "
                f"{model.ROI_HEADS.NAME} on {model.ROI_HEADS.IN_FEATURES}. "
                "Start from configs/_base_/mask_rcnn_fpn.yaml, or choose MaskRCNNC4."
            )
        if "fpn" not in model.BACKBONE.NAME:
            raise ConfigError(
                f"MODEL.BACKBONE.NAME {model.BACKBONE.NAME} builds no pyramid: use "
                "build_resnet_fpn_backbone or build_timm_fpn_backbone, or choose MaskRCNNC4."
            )
        if not model.FPN.IN_FEATURES:
            raise ConfigError(
                "MODEL.FPN.IN_FEATURES is empty: set it to the backbone's features, such as "
                "[res2, res3, res4, res5], which its OUT_FEATURES must name too. "
                "Start from configs/_base_/mask_rcnn_fpn.yaml."
            )


def wanted_size(sample: dict[str, Any], image_size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of the output that a sample asks for; default: the image's."""
    return sample.get("height", image_size[0]), sample.get("width", image_size[1])


def _check_choice(key: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"{key} must be {' or '.join(known)}, not {value!r}")


def _check_poolers(cfg: CfgNode) -> None:
    model = cfg.MODEL
    known = [k for k in POOLER_TYPES if model.ROI_POOLER == "fused" or k != _MAXIMUM]
    for key in ("ROI_BOX_HEAD", "ROI_MASK_HEAD") if model.MASK_ON else ("ROI_BOX_HEAD",):
        if model[key].POOLER_TYPE not in known:
            raise ConfigError(
                f"MODEL.{key}.POOLER_TYPE {model[key].POOLER_TYPE!r} with MODEL.ROI_POOLER "
                f"{model.ROI_POOLER}: choose one of {', '.join(known)}"
            )


def _averaging(cfg: CfgNode) -> CfgNode:
    """The configuration with the mean for the maximum, for which Detectron2 has no pooler."""
    cfg = cfg.clone()
    cfg.defrost()
    for key in _POOLER_KEYS.values():
        if cfg.MODEL[key].POOLER_TYPE == _MAXIMUM:
            cfg.MODEL[key].POOLER_TYPE = "ROIAlignV2"
    return cfg


# As many outputs as one pixel's objectness, box deltas or classes of a small dataset.
_FEW_OUTPUTS = 15


def keep_scores_in_float32(module: nn.Module) -> None:
    """Put a ScoreConv2d, which says why, in the place of each 1x1 convolution to a few scores.

    It takes over the parameters, which keep their names. Convolutions with a norm or an activation
    stay, and so do those of other classes: their forward may do more.
    """
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if _gives_few_scores(child):
                setattr(parent, name, ScoreConv2d.like(child))


def _gives_few_scores(module: nn.Module) -> bool:
    return (
        type(module) in (nn.Conv2d, Conv2d)
        and module.kernel_size == (1, 1)
        and module.out_channels <= _FEW_OUTPUTS
        and getattr(module, "norm", None) is None
        and getattr(module, "activation", None) is None
    )


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
