"""Panoptic segmentation: a system of instances and any semantic head on one backbone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from detectron2.config import CfgNode, configurable
from detectron2.structures import ImageList, Instances
from torch import Tensor, nn

from ...config import ConfigError
from ..instance_representations.base import Features
from ..sem_seg_heads.base import build_semantic_head, semantic_losses
from ..task_weighting import build_weighting
from .mask_rcnn import MaskRCNNFPN, keep_scores_in_float32
from .one_stage import OneStageInstanceSegmentor
from .panoptic_output import PanopticOutput
from .semantic_labels import batch_labels, label_range, source_of


class PanopticMerging(PanopticOutput):
    """What makes a panoptic system of a system of instances: put before it among the bases.

    That system has a ``backbone``, ``mask_format``, ``device``, ``num_things`` and the methods
    ``preprocess_image``, ``batches``, ``instance_losses``, ``find``, ``finish`` and
    ``find_in_views``, as
    :class:`~.mask_rcnn.MaskRCNNFPN` and :class:`~.one_stage.OneStageInstanceSegmentor` do.
    """

    backbone: nn.Module
    tasks: ClassVar[tuple[str, ...]] = ("sem_seg", "instances")

    @configurable
    def __init__(
        self,
        *,
        sem_seg_head: nn.Module,
        num_classes: int | None = None,
        ignore_value: int | None = None,
        thing_ids: Sequence[int] = (),
        instance_loss_weight: float = 1.0,
        loss_weighting: str = "fixed",
        combine_overlap_thresh: float = 0.5,
        combine_stuff_area_thresh: float = 4096,
        combine_instances_score_thresh: float = 0.5,
        **parts: Any,
    ) -> None:
        """Join the parts.

        Args:
            sem_seg_head: see :class:`~.semantic.SemanticSystem`.
            num_classes: of the labels; default: the head's ``num_classes``.
            ignore_value: the label that is left out; default: the head's, else 255.
            thing_ids: semantic label of each instance class; empty where label 0 stands for all
                things.
            instance_loss_weight: factor of the losses of the instances; of Mask R-CNN's, of those
                of the RoI heads: class, box and mask.
            loss_weighting: ``fixed``, or ``uncertainty``: see
                :class:`~seg_plugins.modeling.task_weighting.UncertaintyWeighting`; the tasks are
                semantic labels and instances.
            combine_overlap_thresh: these three: see :func:`~..panoptic_merging.merge_panoptic`.
            combine_stuff_area_thresh: the same.
            combine_instances_score_thresh: the same.
            **parts: of the system of instances.

        Raises:
            ConfigError: the semantic head loses a border, or `thing_ids` do not fit the classes.
        """
        super().__init__(**parts)
        if getattr(sem_seg_head, "border", 0):
            raise ConfigError(
                "PanopticSegmentor's backbone pads its images, so its semantic head must pad too: "
                "set MODEL.UNET.PADDING same"
            )
        keep_scores_in_float32(sem_seg_head)
        self.sem_seg_head = sem_seg_head
        self.num_classes, self.ignore_value = label_range(sem_seg_head, num_classes, ignore_value)
        _check_thing_ids(thing_ids, self.num_classes, self.num_things)
        self.thing_ids = list(thing_ids)
        self.combine_overlap_thresh = combine_overlap_thresh
        self.combine_stuff_area_thresh = combine_stuff_area_thresh
        self.combine_instances_score_thresh = combine_instances_score_thresh
        self.instance_loss_weight = instance_loss_weight
        self.weighting = build_weighting(
            loss_weighting, {"loss_sem_seg": "semantic"}, default="instances"
        )

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Arguments from ``MODEL``.

        Raises:
            ConfigError: backbone and heads do not belong together.
        """
        parts = super().from_config(cfg)
        panoptic, head = cfg.MODEL.PANOPTIC_FPN, cfg.MODEL.SEM_SEG_HEAD
        return {
            **parts,
            "sem_seg_head": build_semantic_head(cfg, parts["backbone"].output_shape()),
            "num_classes": head.NUM_CLASSES,
            "ignore_value": head.IGNORE_VALUE,
            "thing_ids": panoptic.THING_IDS,
            "instance_loss_weight": panoptic.INSTANCE_LOSS_WEIGHT,
            "loss_weighting": panoptic.LOSS_WEIGHTING,
            "combine_overlap_thresh": panoptic.COMBINE.OVERLAP_THRESH,
            "combine_stuff_area_thresh": panoptic.COMBINE.STUFF_AREA_LIMIT,
            "combine_instances_score_thresh": panoptic.COMBINE.INSTANCES_CONFIDENCE_THRESH,
        }

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Losses in training, predictions in inference.

        Args:
            batched_inputs: one dict per image: ``image`` (C, H, W) in raw range; in training
                ``sem_seg`` (H, W) labels and ``instances`` with ``gt_boxes``, ``gt_classes`` and
                ``gt_masks``; ``height`` and ``width`` of the wanted output.

        Returns:
            Training: name -> scalar loss. Inference: see :meth:`inference`.

        Raises:
            ValueError: a sample without labels, or with a label outside the classes.
        """
        if not self.training:
            return self.inference(batched_inputs)
        images = self.preprocess_image(batched_inputs)
        targets, weights = batch_labels(
            batched_inputs,
            (images.tensor.shape[-2], images.tensor.shape[-1]),
            num_classes=self.num_classes,
            ignore_value=self.ignore_value,
            device=self.device,
        )
        for sample in batched_inputs:
            _check_instances(sample)
        features = self.backbone(images.tensor)
        losses = semantic_losses(self.sem_seg_head, features, targets, weights)
        weight = self.instance_loss_weight
        losses = losses.joined(self.instance_losses(images, features, batched_inputs, weight))
        return losses if self.weighting is None else self.weighting(losses)

    def find_both(
        self, images: ImageList, features: Features
    ) -> tuple[list[Instances], list[Tensor]]:
        """See :class:`~.panoptic_output.PanopticOutput`."""
        logits = self.sem_seg_head(features, None)[0]
        return self.find(images, features), list(logits)

    def merging(self) -> dict[str, Any]:
        """See :class:`~.panoptic_output.PanopticOutput`."""
        return {
            "thing_ids": self.thing_ids,
            "overlap_threshold": self.combine_overlap_thresh,
            "stuff_area_threshold": self.combine_stuff_area_thresh,
            "score_threshold": self.combine_instances_score_thresh,
        }


class OneStagePanopticSegmentor(PanopticMerging, OneStageInstanceSegmentor):
    """The representation that ``MODEL.ONE_STAGE.REPRESENTATION`` names, and any semantic head."""


class PanopticSegmentor(PanopticMerging, MaskRCNNFPN):  # type: ignore[misc]  # no boxes to start from
    """Panoptic FPN (Kirillov et al. 2019): Mask R-CNN and any semantic head on one backbone.

    The head may be one of this package or of somebody else's, of Detectron2's contract. With
    ``SemSegPyramidHead`` or ``SemSegFPNHead`` the parameters are those of Detectron2's
    ``PanopticFPN``, so that its checkpoints load, and the output is the same, merged in bulk.

    Where ``MODEL.ONE_STAGE.REPRESENTATION`` names an instance representation, or ``representation``
    is given, a one-stage system takes Mask R-CNN's place: :class:`OneStagePanopticSegmentor`.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """One of the two."""
        cfg = args[0] if args else kwargs.get("cfg")
        named = isinstance(cfg, CfgNode) and cfg.MODEL.ONE_STAGE.REPRESENTATION
        if cls is PanopticSegmentor and (named or "representation" in kwargs):
            return OneStagePanopticSegmentor(*args, **kwargs)
        return super().__new__(cls)

    @classmethod
    def check(cls, cfg: CfgNode) -> None:
        """Raise ConfigError unless backbone, RoI heads and semantic head fit together."""
        super().check(cfg)
        model = cfg.MODEL
        if model.SEM_SEG_HEAD.NAME == "SemSegSegNetHead" and not (
            model.BACKBONE.NAME == "build_vgg_fpn_backbone" and model.VGG.POOLING_INDICES
        ):
            raise ConfigError(
                "SemSegSegNetHead needs pooling indices, which MODEL.BACKBONE.NAME "
                f"{model.BACKBONE.NAME} does not hand on here. Set it to build_vgg_fpn_backbone "
                "with MODEL.VGG.POOLING_INDICES True, MODEL.VGG.OUT_FEATURES and "
                "MODEL.FPN.IN_FEATURES [pool2, pool3, pool4, pool5], as in "
                "configs/shapes/panoptic_segnet.yaml, or choose another semantic head."
            )
        if not model.MASK_ON:
            raise ConfigError("PanopticSegmentor merges masks: set MODEL.MASK_ON True")


def _check_instances(sample: dict[str, Any]) -> None:
    if "instances" not in sample:
        raise ValueError(
            f"{source_of(sample)} has no 'instances', which training needs: set INPUT.MAPPER "
            "to PanopticMapper and DATASETS.TRAIN to a panoptic dataset"
        )


def _check_thing_ids(thing_ids: Sequence[int], num_labels: int, num_things: int) -> None:
    distinct = set(thing_ids)
    fits = len(thing_ids) == len(distinct) == num_things and distinct <= set(range(num_labels))
    if thing_ids and not fits:
        raise ConfigError(
            f"MODEL.PANOPTIC_FPN.THING_IDS {list(thing_ids)} must be {num_things} different labels "
            f"below {num_labels}: the semantic label of each class of MODEL.ROI_HEADS, or [] where "
            "label 0 stands for all things"
        )
