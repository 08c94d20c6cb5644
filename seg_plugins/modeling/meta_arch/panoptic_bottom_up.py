"""Panoptic segmentation without boxes: semantic labels, grouped by predicted centres."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.structures import BitMasks, ImageList, Instances
from torch import Tensor

from ...config import ConfigError
from ..inference import WholeImage
from ..instance_centers import (
    BottomUpSegments,
    CenterTargets,
    center_targets,
    segments_from_centers,
)
from ..loss_terms import Losses
from ..postprocessing import sem_seg_postprocess
from ..sem_seg_heads.base import semantic_losses
from ..sem_seg_heads.centers import InstanceCenterHead
from ..task_weighting import build_weighting
from ..test_time.probabilities import MeanProbability
from ..test_time.views import View, Views
from .mask_rcnn import wanted_size
from .semantic import SemanticSystem
from .semantic_labels import source_of


class BottomUpPanopticSegmentor(SemanticSystem):
    """Panoptic-DeepLab (Cheng et al. 2020) with any semantic head of this package."""

    tasks: ClassVar[tuple[str, ...]] = ("sem_seg", "instances")

    @configurable
    def __init__(
        self,
        *,
        center_head: InstanceCenterHead,
        thing_ids: Sequence[int],
        sigma: float = 10.0,
        small_instance_area: float = 4096,
        small_instance_weight: float = 3.0,
        stuff_area: int = 2048,
        center_threshold: float = 0.1,
        nms_kernel: int = 7,
        top_k: int = 200,
        loss_weighting: str = "fixed",
        **parts: Any,
    ) -> None:
        """Join the parts.

        Args:
            center_head: predicts centres and offsets.
            thing_ids: semantic label of each class of instances.
            sigma: of the bump at a centre, in pixels.
            small_instance_area: instances of fewer pixels count as small.
            small_instance_weight: factor of the semantic loss of their pixels.
            stuff_area: stuff of fewer pixels becomes void.
            center_threshold: least value of a centre.
            nms_kernel: odd side of the window in which a centre is the maximum.
            top_k: centres at most.
            loss_weighting: ``fixed`` or ``uncertainty``, with the tasks semantic labels, centres
                and offsets.
            **parts: see :class:`~.semantic.SemanticSystem`.

        Raises:
            ConfigError: parts that do not fit.
        """
        super().__init__(**parts)
        labels = self.num_classes
        if not thing_ids or not set(thing_ids) <= set(range(labels)):
            raise ConfigError(
                "BottomUpPanopticSegmentor needs MODEL.PANOPTIC_FPN.THING_IDS, the semantic label "
                f"of each class of things, below NUM_CLASSES {labels}; got {list(thing_ids)}"
            )
        if self.border or not isinstance(self.cover, WholeImage):
            raise ConfigError(
                "BottomUpPanopticSegmentor predicts the whole image: set MODEL.INFERENCE.MODE "
                "whole without SCALES and FLIP, and MODEL.UNET.PADDING same"
            )
        self.center_head = center_head
        self.thing_ids = list(thing_ids)
        self.sigma = sigma
        self.small_instance_area = small_instance_area
        self.small_instance_weight = small_instance_weight
        self.grouping: dict[str, Any] = {
            "stuff_area": stuff_area,
            "threshold": center_threshold,
            "nms_kernel": nms_kernel,
            "top_k": top_k,
        }
        tasks = {"loss_sem_seg": "semantic", "loss_center": "centers"}
        self.weighting = build_weighting(loss_weighting, tasks, default="offsets")

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Arguments from ``MODEL``.

        Raises:
            ConfigError: parts that do not fit, or another number of things than of their labels.
        """
        parts = super().from_config(cfg)
        deeplab, panoptic = cfg.MODEL.PANOPTIC_DEEPLAB, cfg.MODEL.PANOPTIC_FPN
        labels, things = len(panoptic.THING_IDS), cfg.MODEL.ROI_HEADS.NUM_CLASSES
        if labels and labels != things:
            raise ConfigError(
                f"MODEL.PANOPTIC_FPN.THING_IDS names {labels} labels, MODEL.ROI_HEADS.NUM_CLASSES "
                f"is {things}: give the semantic label of each class of things"
            )
        return {
            **parts,
            "center_head": InstanceCenterHead(cfg, parts["backbone"].output_shape()),
            "thing_ids": panoptic.THING_IDS,
            "sigma": deeplab.GAUSSIAN_SIGMA,
            "small_instance_area": deeplab.SMALL_INSTANCE_AREA,
            "small_instance_weight": deeplab.SMALL_INSTANCE_WEIGHT,
            "stuff_area": deeplab.STUFF_AREA,
            "center_threshold": deeplab.CENTER_THRESHOLD,
            "nms_kernel": deeplab.NMS_KERNEL,
            "top_k": deeplab.TOP_K_INSTANCE,
            "loss_weighting": panoptic.LOSS_WEIGHTING,
        }

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Losses in training, predictions in inference.

        Args:
            batched_inputs: one dict per image: ``image`` (C, H, W) in raw range; in training
                ``sem_seg`` (H, W) labels and ``instances`` with ``gt_masks`` as bitmasks;
                ``height`` and ``width`` of the wanted output.

        Returns:
            Training: ``loss_sem_seg``, ``loss_center`` and ``loss_offset``. Inference: one dict
            per image with ``sem_seg`` (K, height, width) logits, ``panoptic_seg``: ids
            (height, width) int32 and a dict for each (``id``, ``isthing``, ``category_id``; things
            also ``score`` and ``instance_id``, stuff ``area``), and ``instances`` of the things,
            whose ``pred_classes`` are semantic labels.

        Raises:
            ValueError: a sample without labels or masks, or with a label outside the classes.
        """
        images = [s["image"].to(self.device, non_blocking=True) for s in batched_inputs]
        images = [(image - self.pixel_mean) / self.pixel_std for image in images]
        batch = ImageList.from_tensors(images, self.backbone.size_divisibility)
        if self.training:
            losses = self._losses_of(batch.tensor, batched_inputs)
            return losses if self.weighting is None else self.weighting(losses)
        return [
            self.merged(*resized_maps(parts, size, *wanted_size(sample, size)))
            for sample, size, *parts in zip(
                batched_inputs, batch.image_sizes, *self._maps(batch), strict=True
            )
        ]

    def predict_views(self, views: Views) -> dict[str, Any]:
        """What :meth:`forward` gives of an image, by its views.

        The mean of what they predict is grouped once: of the probabilities of the classes, of the
        heat maps, and of the offsets, whose sign across turns with a mirror image and whose length
        grows with the image (Cheng et al. 2020 and the authors' implementation).
        """

        def maps(view: View) -> list[Tensor]:
            image = (view.image.to(self.device) - self.pixel_mean) / self.pixel_std
            batch = ImageList.from_tensors([image], self.backbone.size_divisibility)
            return [part[0] for part in self._maps(batch)]

        return self.merged_views(views, maps)

    def merged_views(
        self, views: Views, maps: Callable[[View], Sequence[Tensor]]
    ) -> dict[str, Any]:
        """The output for an image.

        Args:
            views: of the image.
            maps: gives logits, heat maps and offsets of a view, of any size.
        """
        mean = MeanProbability()
        total = torch.zeros(3, views.height, views.width)
        for view in views:
            size = (views.height, views.width)
            logits, heatmap, offsets = resized_maps(maps(view), view.size, *size)
            mean.add(view.upright(logits))
            total = total.to(logits.device)
            total[:1] += view.upright(heatmap)
            turned = offsets * offsets.new_tensor([1, -1])[:, None, None]
            total[1:] += view.upright(turned) if view.mirrored else offsets
        total /= len(views)
        return self.merged(mean.logits(), total[:1], total[1:])

    def _maps(self, batch: ImageList) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, heat maps and offsets of a padded batch."""
        features = self.backbone(batch.tensor)
        heatmaps, offsets = self.center_head.predict(features)
        return self.sem_seg_head(features)[0], heatmaps, offsets

    def _losses_of(self, images: Tensor, samples: list[dict[str, Any]]) -> Losses:
        targets = [self._center_targets(sample) for sample in samples]
        weighted = samples
        if self.small_instance_weight != 1:
            weighted = [
                {**sample, "sem_seg_weights": self._semantic_weights(t).cpu()}
                for sample, t in zip(samples, targets, strict=True)
            ]
        labels, weights = self.batch_labels(weighted, (images.shape[-2], images.shape[-1]))
        # Pixels of things without an instance are crowds: their centres are not known.
        is_thing = torch.isin(labels, torch.tensor(self.thing_ids, device=labels.device))
        valid = labels != self.ignore_value
        for mask, thing, target in zip(valid, is_thing, targets, strict=True):
            height, width = target.inside.shape
            mask[:height, :width] &= target.inside | ~thing[:height, :width]
        features = self.backbone(images)
        losses = semantic_losses(self.sem_seg_head, features, labels, weights)
        return losses.joined(self.center_head.center_losses(features, targets, valid))

    def _center_targets(self, sample: dict[str, Any]) -> CenterTargets:
        if "instances" not in sample or not isinstance(
            sample["instances"].get_fields().get("gt_masks"), BitMasks
        ):
            raise ValueError(
                f"{source_of(sample)} has no 'instances' with bitmasks, which training needs: set "
                "INPUT.MAPPER to PanopticMapper and DATASETS.TRAIN to a panoptic dataset"
            )
        masks = sample["instances"].gt_masks.tensor.to(self.device)
        return center_targets(masks.reshape(-1, *sample["image"].shape[-2:]), self.sigma)

    def _semantic_weights(self, targets: CenterTargets) -> Tensor:
        small = targets.inside & (targets.areas < self.small_instance_area)
        return torch.where(small, float(self.small_instance_weight), 1.0)

    def merged(self, logits: Tensor, heatmap: Tensor, offsets: Tensor) -> dict[str, Any]:
        """What the maps give, at the size that they have."""
        segments = segments_from_centers(
            logits.max(dim=0).indices,
            heatmap[0],
            offsets,
            len(logits),
            self.thing_ids,
            **self.grouping,
        )
        instances = self._instances(segments, logits, heatmap[0])
        return {
            "sem_seg": logits,
            "panoptic_seg": (segments.ids, _describe(segments, instances.scores)),
            "instances": instances,
        }

    def _instances(self, segments: BottomUpSegments, logits: Tensor, heatmap: Tensor) -> Instances:
        """The things; score: value at the centre times mean probability of the class."""
        count, size = segments.num_things, tuple(segments.ids.shape)
        labels = segments.labels[:count]
        ids = segments.ids.flatten().long()
        # Probability of its segment's label at each pixel of a thing, summed by segment.
        of_things = (ids > 0) & (ids <= count)
        pixels, ids = of_things.nonzero()[:, 0], ids[of_things]
        probability = F.softmax(logits.flatten(1)[:, pixels], dim=0)
        chosen = probability.gather(0, labels[ids - 1][None])[0]
        sums = torch.zeros(count, device=logits.device).index_add_(0, ids - 1, chosen)
        instances = Instances(size)
        instances.pred_masks = segments.ids == torch.arange(
            1, count + 1, device=logits.device
        ).reshape(-1, 1, 1)
        instances.pred_boxes = BitMasks(instances.pred_masks).get_bounding_boxes()
        center_values = heatmap[segments.centers[:, 0], segments.centers[:, 1]]
        instances.scores = center_values.clamp(0, 1) * sums / segments.areas[:count]
        instances.pred_classes = labels
        return instances


def resized_maps(
    parts: Sequence[Tensor], size: tuple[int, int], height: int, width: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, heat map and offsets of an image of `size` in the network, at another size."""
    logits, heatmap, offsets = (sem_seg_postprocess(part, size, height, width) for part in parts)
    # Offsets are lengths: they grow with the image.
    scale = offsets.new_tensor([height / size[0], width / size[1]])
    return logits, heatmap, offsets * scale[:, None, None]


def _describe(segments: BottomUpSegments, scores: Tensor) -> list[dict[str, Any]]:
    """``segments_info`` in Detectron2's form."""
    things = zip(segments.labels.tolist(), scores.tolist(), strict=False)
    described: list[dict[str, Any]] = [
        {"id": i + 1, "isthing": True, "category_id": label, "score": score, "instance_id": i}
        for i, (label, score) in enumerate(things)
    ]
    areas = segments.areas.tolist()
    for i in range(segments.num_things, len(areas)):
        label = int(segments.labels[i])
        described.append({"id": i + 1, "isthing": False, "category_id": label, "area": areas[i]})
    return described
