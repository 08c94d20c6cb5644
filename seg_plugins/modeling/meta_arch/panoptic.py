"""Panoptic segmentation: Mask R-CNN and any semantic head on one backbone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from detectron2.config import CfgNode, configurable
from detectron2.modeling import PanopticFPN
from detectron2.modeling.postprocessing import detector_postprocess, sem_seg_postprocess
from detectron2.structures import Instances
from torch import Tensor

from ...config import ConfigError
from ..panoptic_merging import merge_panoptic
from ..task_weighting import build_weighting
from .mask_rcnn import MaskRCNNFPN, keep_scores_in_float32, postprocess_to_run_lengths
from .semantic import check_labels, source_of

# Built in the place of Detectron2's head: the same parameters, this package's losses.
_STAND_IN = {"SemSegFPNHead": "SemSegPyramidHead"}


class PanopticSegmentor(MaskRCNNFPN, PanopticFPN):
    """Panoptic FPN (Kirillov et al. 2019) with any semantic head of this package.

    With ``SemSegFPNHead`` it is Detectron2's ``PanopticFPN``: the same parameters, so that its
    checkpoints load, and the same output, merged in bulk.
    """

    tasks: ClassVar[tuple[str, ...]] = ("sem_seg", "instances")

    @configurable
    def __init__(
        self,
        *,
        thing_ids: Sequence[int] = (),
        instance_loss_weight: float = 1.0,
        loss_weighting: str = "fixed",
        **parts: Any,
    ) -> None:
        """Join the parts.

        Args:
            thing_ids: semantic label of each instance class; empty where label 0 stands for all
                things.
            instance_loss_weight: factor of the losses of the RoI heads: class, box and mask.
            loss_weighting: ``fixed``, or ``uncertainty``: see
                :class:`~seg_plugins.modeling.task_weighting.UncertaintyWeighting`; the tasks are
                the semantic head's and Mask R-CNN's.
            **parts: of :class:`detectron2.modeling.PanopticFPN`, and ``mask_format`` of
                :class:`~.mask_rcnn.MaskRCNNFPN`.

        Raises:
            ConfigError: the semantic head loses a border, or `thing_ids` do not fit the classes.
        """
        super().__init__(**parts)
        head = self.sem_seg_head
        if getattr(head, "border", 0):
            raise ConfigError(
                "PanopticSegmentor's backbone pads its images, so its semantic head must pad too: "
                "set MODEL.UNET.PADDING same"
            )
        _check_thing_ids(thing_ids, head.num_classes, self.roi_heads.num_classes)
        keep_scores_in_float32(head)
        self.thing_ids = list(thing_ids)
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
        buildable = cfg.clone()
        buildable.defrost()
        head = buildable.MODEL.SEM_SEG_HEAD
        head.NAME = _STAND_IN.get(head.NAME, head.NAME)
        # Detectron2 would leave the class loss out.
        buildable.MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT = 1.0
        panoptic = cfg.MODEL.PANOPTIC_FPN
        return {
            **super().from_config(buildable),
            "thing_ids": panoptic.THING_IDS,
            "instance_loss_weight": panoptic.INSTANCE_LOSS_WEIGHT,
            "loss_weighting": panoptic.LOSS_WEIGHTING,
        }

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
        for sample in batched_inputs:
            self._check_sample(sample)
        losses = super().forward(batched_inputs)
        for name in losses:
            if name != "loss_sem_seg" and not name.startswith("loss_rpn"):
                losses[name] = losses[name] * self.instance_loss_weight
        return losses if self.weighting is None else self.weighting(losses)

    def _check_sample(self, sample: dict[str, Any]) -> None:
        for key in ("sem_seg", "instances"):
            if key not in sample:
                raise ValueError(
                    f"{source_of(sample)} has no '{key}', which training needs: set INPUT.MAPPER "
                    "to PanopticMapper and DATASETS.TRAIN to a panoptic dataset"
                )
        head = self.sem_seg_head
        check_labels(sample["sem_seg"], head.num_classes, head.ignore_value, source_of(sample))

    def inference(  # type: ignore[override]  # PanopticFPN's arguments
        self, batched_inputs: list[dict[str, Any]], do_postprocess: bool = True
    ) -> Any:
        """Predict the three tasks.

        Args:
            batched_inputs: see :meth:`forward`.
            do_postprocess: bring the results to the wanted size and merge them.

        Returns:
            One dict per image with ``sem_seg`` (K, height, width) logits, ``instances`` and
            ``panoptic_seg``, the pair that :func:`~..panoptic_merging.merge_panoptic` returns. With
            `thing_ids`, ``pred_classes`` are semantic labels, the contiguous ids of a dataset that
            numbers things and stuff together.
            Without post-processing: the Instances and the logits of the padded batch.
        """
        found = PanopticFPN.inference(self, batched_inputs, do_postprocess=False)
        if not do_postprocess:
            return found
        results = []
        for instances, logits, sample in zip(*found, batched_inputs, strict=True):
            size = instances.image_size
            height, width = sample.get("height", size[0]), sample.get("width", size[1])
            semantic = sem_seg_postprocess(logits, size, height, width)
            finish = (
                postprocess_to_run_lengths if self.mask_format == "rle" else detector_postprocess
            )
            instances = finish(instances, height, width)
            panoptic = self._merge(instances, semantic)
            if self.thing_ids:
                labels = instances.pred_classes.new_tensor(self.thing_ids)
                instances.pred_classes = labels[instances.pred_classes]
            results.append({"sem_seg": semantic, "instances": instances, "panoptic_seg": panoptic})
        return results

    def _merge(self, instances: Instances, semantic: Tensor) -> tuple[Tensor, list[dict[str, Any]]]:
        return merge_panoptic(
            instances,
            # max's indices are argmax's, in a tenth of the time on a CPU.
            semantic.max(dim=0).indices,
            len(semantic),
            thing_ids=self.thing_ids,
            overlap_threshold=self.combine_overlap_thresh,
            stuff_area_threshold=self.combine_stuff_area_thresh,
            score_threshold=self.combine_instances_score_thresh,
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
