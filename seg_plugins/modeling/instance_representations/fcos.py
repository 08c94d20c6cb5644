"""FCOS (Tian et al. 2019) as the ground of instance representations: CondInst and PolarMask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.structures import Instances
from torch import Tensor, nn

from ...config import ConfigError
from ..loss_terms import Losses, Sum
from ..sem_seg_heads.base import full_precision
from .base import Features, InstanceRepresentation, Size, Truth, features_of
from .layers import focal_sum
from .mask_forms import MaskForm
from .points import (
    BOX_LOSSES,
    PointOutputs,
    Points,
    Positives,
    assign,
    box_losses,
    box_nms,
    boxes_of,
    flat,
    level_ranges,
    points_of,
    sides_of,
)

# A sum of weights as a count, which has to be 1 at least: in parts of this size.
_PART = 1024


class Scale(nn.Module):
    """A factor that is learned."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """The product, in float32."""
        with full_precision(x):
            return x.float() * self.scale


class PointRepresentation(InstanceRepresentation):
    """What representations on FCOS's points share: assignment, losses, and the choice of points.

    A subclass gives :meth:`layers`, :meth:`code_losses`, :meth:`masks_of` and :meth:`rate`.
    """

    #: The node of the configuration.
    key = "MODEL.FCOS"

    def __init__(
        self,
        *,
        num_classes: int,
        in_features: Sequence[str],
        strides: Sequence[int],
        sizes: Sequence[float],
        box_loss: str,
        nms_threshold: float,
        radius: float = 1.5,
        score_threshold: float = 0.05,
        pre_nms: int = 1000,
        max_instances: int = 100,
    ) -> None:
        """Keep what both need.

        Args:
            num_classes: K.
            in_features: of the levels, from fine to coarse.
            strides: of the levels.
            sizes: borders between the ranges of the levels: the longest of a point's sides.
            box_loss: see :func:`~.points.box_losses`.
            nms_threshold: of the boxes' IoU.
            radius: see :func:`~.points.assign`.
            score_threshold: least score before suppression.
            pre_nms: finds of a level at most that suppression compares.
            max_instances: of an image.

        Raises:
            ConfigError: the lists do not fit, or the loss is unknown.
        """
        super().__init__()
        if len(sizes) != len(in_features) - 1 or list(sizes) != sorted(sizes):
            raise ConfigError(
                f"{self.key}.SIZES_OF_INTEREST {list(sizes)} are the borders between the "
                f"{len(in_features)} levels of IN_FEATURES: give {len(in_features) - 1}, growing"
            )
        if box_loss not in BOX_LOSSES:
            raise ConfigError(
                f"{self.key}.LOC_LOSS_TYPE is {' or '.join(BOX_LOSSES)}, not {box_loss!r}"
            )
        self.num_classes, self.in_features = num_classes, list(in_features)
        self.strides, self.ranges = list(strides), level_ranges(sizes)
        self.radius, self.box_loss = radius, box_loss
        self.score_threshold, self.pre_nms = score_threshold, pre_nms
        self.nms_threshold, self.max_instances = nms_threshold, max_instances

    @classmethod
    def shared_arguments(
        cls, cfg: CfgNode, node: CfgNode, input_shape: dict[str, ShapeSpec]
    ) -> dict[str, Any]:
        """Arguments of this class from its node, and the channels of the features."""
        shapes = features_of(input_shape, node.IN_FEATURES, f"{cls.key}.IN_FEATURES")
        return {
            "num_classes": cfg.MODEL.ROI_HEADS.NUM_CLASSES,
            "in_channels": shapes[0].channels,
            "in_features": node.IN_FEATURES,
            "strides": [shape.stride for shape in shapes],
            "sizes": node.SIZES_OF_INTEREST,
            "radius": node.POS_RADIUS,
            "box_loss": node.LOC_LOSS_TYPE,
            "score_threshold": node.SCORE_THRESH_TEST,
            "pre_nms": node.PRE_NMS_TOPK_TEST,
            "nms_threshold": node.NMS_THRESH_TEST,
            "max_instances": cfg.TEST.DETECTIONS_PER_IMAGE,
        }

    def layers(self, features: Features) -> PointOutputs:
        """See :class:`PointOutputs`."""
        raise NotImplementedError

    def points(self, outputs: PointOutputs) -> Points:
        """Of all levels."""
        sizes = [(level.shape[-2], level.shape[-1]) for level in outputs.categories]
        return points_of(sizes, self.strides, outputs.categories[0].device)

    def losses(self, outputs: PointOutputs, truths: Sequence[Truth], size: Size) -> Losses:
        """``loss_category`` (focal), ``loss_box``, ``loss_centerness`` and ``loss_mask``.

        Means over the points that have to find an object; the boxes' is weighed by centerness.
        """
        points, categories = self.points(outputs), flat(outputs.categories)
        owners = torch.stack([assign(points, t, self.ranges, self.radius) for t in truths])
        images, places = (owners >= 0).nonzero().unbind(dim=1)
        owners = owners[images, places]
        firsts = owners.new_tensor([0] + [len(truth) for truth in truths]).cumsum(dim=0)[images]
        boxes = torch.cat([truth.boxes for truth in truths])[firsts + owners]
        xy = points.xy[places]
        positives = Positives(images, places, owners, xy, sides_of(xy, boxes))
        classes = owners.new_full(categories.shape[:2], self.num_classes)
        of_objects = torch.cat([truth.classes for truth in truths])
        classes[images, places] = of_objects[firsts + owners]

        focal = focal_sum(categories.flatten(0, 1), classes.flatten())
        count = torch.tensor(len(owners))
        sides = flat(outputs.sides)[images, places]
        logits = flat(outputs.centerness)[images, places, 0]
        with full_precision(sides):
            centerness, mask_loss = self.code_losses(outputs, positives, truths, size)
            boxes_lost = box_losses(sides, positives.sides, self.box_loss)
            quality = nn.functional.binary_cross_entropy_with_logits(
                logits, centerness, reduction="sum"
            )
            # Levels without an object, and what no loss reads, get a gradient of 0.
            maps = [*outputs.centerness, *outputs.sides, *outputs.codes]
            maps += [] if outputs.shared is None else [outputs.shared]
            nothing = torch.stack([level.float().sum() for level in maps]).sum() * 0.0
        return Losses(
            {
                # An image counts as one point more, as in the first FCOS: so one without objects
                # has its share in a batch that is taken in parts.
                "loss_category": Sum(focal, count + len(truths)),
                "loss_box": weighed(boxes_lost, centerness),
                "loss_centerness": Sum(quality + nothing, count),
                "loss_mask": mask_loss,
            }
        )

    def code_losses(
        self, outputs: PointOutputs, positives: Positives, truths: Sequence[Truth], size: Size
    ) -> tuple[Tensor, Sum]:
        """The true centerness (P,) of the points, and the loss of their masks.

        Args:
            outputs: of :meth:`layers`.
            positives: points that have to find an object.
            truths: of the images.
            size: rows and columns of the padded batch.
        """
        raise NotImplementedError

    def find(
        self, outputs: PointOutputs, size: Size, image_sizes: Sequence[Size]
    ) -> list[Instances]:
        """See :class:`~.base.InstanceRepresentation`."""
        points = self.points(outputs)
        likely, scores = self.rate(
            flat(outputs.categories).sigmoid(), flat(outputs.centerness).sigmoid()
        )
        sides = flat(outputs.sides)
        counts = [level.shape[-2] * level.shape[-1] for level in outputs.categories]
        found = []
        for index, image in enumerate(image_sizes):
            places, classes = self._likely(likely[index], scores[index], counts)
            own = scores[index, places, classes]
            boxes = boxes_of(points.xy[places], sides[index, places])
            kept = box_nms(boxes, own, classes, self.nms_threshold, image)[: self.max_instances]
            instances = Instances(image)
            instances.scores, instances.pred_classes = own[kept], classes[kept]
            instances.pred_masks = self.masks_of(outputs, index, points, places[kept], size)
            found.append(instances)
        return found

    def _likely(
        self, likely: Tensor, scores: Tensor, counts: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Places and classes above the threshold, of each level the best, from (L, K)."""
        places, classes, start = [], [], 0
        for count in counts:
            level = slice(start, start + count)
            place, of_class = (likely[level] > self.score_threshold).nonzero().unbind(dim=1)
            best = scores[level][place, of_class].argsort(descending=True)
            best = best[: self.pre_nms]
            places.append(place[best] + start)
            classes.append(of_class[best])
            start += count
        return torch.cat(places), torch.cat(classes)

    def rate(self, categories: Tensor, centerness: Tensor) -> tuple[Tensor, Tensor]:
        """What the threshold is for, and the scores, both (N, L, K).

        Args:
            categories: (N, L, K) probabilities.
            centerness: (N, L, 1) from 0 to 1.
        """
        raise NotImplementedError

    def masks_of(
        self, outputs: PointOutputs, index: int, points: Points, places: Tensor, size: Size
    ) -> MaskForm:
        """The masks of some points of an image.

        Args:
            outputs: of :meth:`layers`.
            index: of the image.
            points: of all levels.
            places: (N,) of the points.
            size: rows and columns of the padded batch.
        """
        raise NotImplementedError


def weighed(losses: Tensor, weights: Tensor) -> Sum:
    """The mean of (P,) losses by (P,) weights, as a sum that knows its weight."""
    return Sum((losses * weights).sum() * _PART, weights.sum() * _PART)
