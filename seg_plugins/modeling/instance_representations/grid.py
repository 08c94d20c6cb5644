"""What SOLO and SOLOv2 share: categories on grids, their truth, and the choice of masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.structures import Instances
from torch import Tensor

from ...config import ConfigError
from ...ops.suppression import falling, mask_nms, matrix_nms
from ..loss_terms import Losses, Sum
from .base import Features, InstanceRepresentation, Size, Truth
from .layers import focal_count, focal_sum, resize
from .mask_forms import DenseMasks
from .solo_grid import GridTargets, grid_targets


class SOLOOutputs(NamedTuple):
    """What SOLO's network says.

    Attributes:
        categories: of each level (N, K, S, S) logits.
        masks: what the masks are made of; of SOLO (N, S * S, h, w) logits of each level.
    """

    categories: list[Tensor]
    masks: Any


class GridRepresentation(InstanceRepresentation):
    """Each cell of some grids has a category and a mask: SOLO and SOLOv2."""

    def __init__(
        self,
        *,
        num_classes: int,
        grids: Sequence[int],
        strides: Sequence[int],
        scale_ranges: Sequence[tuple[float, float]],
        in_features: Sequence[str],
        sigma: float = 0.2,
        category_weight: float = 1.0,
        mask_weight: float = 3.0,
        score_threshold: float = 0.1,
        mask_threshold: float = 0.5,
        pre_nms: int = 500,
        nms: str = "matrix",
        nms_kernel: str = "gaussian",
        nms_sigma: float = 2.0,
        update_threshold: float = 0.05,
        max_instances: int = 100,
    ) -> None:
        """Keep what both need.

        Args:
            num_classes: K.
            grids: S of each level.
            strides: pixels that a mask of each level has more than, in cells of its grid.
            scale_ranges: see :func:`~.solo_grid.grid_targets`.
            in_features: of each level.
            sigma: the same.
            category_weight: factor of the focal loss.
            mask_weight: factor of the dice loss.
            score_threshold: least category score before masks are looked at.
            mask_threshold: of a pixel's probability.
            pre_nms: masks at most that suppression compares.
            nms: ``matrix``, or ``mask``: greedy, at an IoU of `mask_threshold`.
            nms_kernel: see :func:`~seg_plugins.ops.suppression.matrix_nms`.
            nms_sigma: the same.
            update_threshold: least score after suppression.
            max_instances: of an image.

        Raises:
            ConfigError: the lists differ in length, or the suppression is unknown.
        """
        super().__init__()
        if len({len(grids), len(strides), len(scale_ranges), len(in_features)}) > 1:
            raise ConfigError(
                f"{self.key}: NUM_GRIDS, FPN_INSTANCE_STRIDES, FPN_SCALE_RANGES and "
                f"INSTANCE_IN_FEATURES have {len(grids)}, {len(strides)}, {len(scale_ranges)} and "
                f"{len(in_features)} entries: give one of each for a level"
            )
        for key, value, known in (
            ("NMS_TYPE", nms, ("matrix", "mask")),
            ("NMS_KERNEL", nms_kernel, ("gaussian", "linear")),
        ):
            if value not in known:
                raise ConfigError(f"{self.key}.{key} is {' or '.join(known)}, not {value!r}")
        self.num_classes, self.grids, self.strides = num_classes, list(grids), list(strides)
        self.scale_ranges, self.in_features = list(scale_ranges), list(in_features)
        self.sigma, self.category_weight, self.mask_weight = sigma, category_weight, mask_weight
        self.score_threshold, self.mask_threshold = score_threshold, mask_threshold
        self.pre_nms, self.nms, self.update_threshold = pre_nms, nms, update_threshold
        self.nms_options: dict[str, Any] = {"kernel": nms_kernel, "sigma": nms_sigma}
        self.max_instances = max_instances

    #: The node of the configuration.
    key = "MODEL.SOLO"
    #: Pixels of the image by cell of the masks that are compared and handed on.
    mask_stride: int

    @classmethod
    def shared_arguments(cls, cfg: CfgNode, node: CfgNode) -> dict[str, Any]:
        """Arguments of this class from its node."""
        return {
            "num_classes": cfg.MODEL.ROI_HEADS.NUM_CLASSES,
            "grids": node.NUM_GRIDS,
            "strides": node.FPN_INSTANCE_STRIDES,
            "scale_ranges": node.FPN_SCALE_RANGES,
            "in_features": node.INSTANCE_IN_FEATURES,
            "sigma": node.SIGMA,
            "category_weight": node.LOSS.FOCAL_WEIGHT,
            "mask_weight": node.LOSS.DICE_WEIGHT,
            "score_threshold": node.SCORE_THR,
            "mask_threshold": node.MASK_THR,
            "pre_nms": node.NMS_PRE,
            "nms": node.NMS_TYPE,
            "nms_kernel": node.NMS_KERNEL,
            "nms_sigma": node.NMS_SIGMA,
            "update_threshold": node.UPDATE_THR,
            "max_instances": cfg.TEST.DETECTIONS_PER_IMAGE,
        }

    def levels(self, features: Features) -> list[Tensor]:
        """The maps of the grids: the first at half its size, the last at the size before it.

        One or two levels stay as they are.
        """
        maps = [features[name] for name in self.in_features]
        if len(maps) < 3:
            return maps
        first = F.interpolate(maps[0], scale_factor=0.5, mode="bilinear", align_corners=False)
        return [first, *maps[1:-1], resize(maps[-1], (maps[-2].shape[-2], maps[-2].shape[-1]))]

    @staticmethod
    def strides_of_levels(strides: Sequence[int]) -> list[int]:
        """Strides of the maps that :meth:`levels` gives."""
        if len(strides) < 3:
            return list(strides)
        return [strides[0] * 2, *strides[1:-1], strides[-2]]

    def losses(self, outputs: SOLOOutputs, truths: Sequence[Truth], size: Size) -> Losses:
        """``loss_category``, focal, and ``loss_mask``, dice, the mean over cells with an object."""
        arguments = (self.grids, self.scale_ranges, self.sigma, size, self.num_classes)
        targets = [grid_targets(truth, *arguments) for truth in truths]
        total = sum(
            focal_sum(
                level.permute(0, 2, 3, 1).flatten(0, 2),
                torch.cat([image[i].classes for image in targets]),
            )
            for i, level in enumerate(outputs.categories)
        )
        count = torch.tensor(sum(len(part.cells) for image in targets for part in image))
        mask_total = self.mask_loss(outputs.masks, truths, targets, size)
        return Losses(
            {
                "loss_category": Sum(total * self.category_weight, focal_count(count, truths)),
                "loss_mask": Sum(mask_total * self.mask_weight, count),
            }
        )

    def mask_loss(
        self,
        masks: Any,
        truths: Sequence[Truth],
        targets: Sequence[Sequence[GridTargets]],
        size: Size,
    ) -> Tensor:
        """The sum of the dice losses over all cells with an object; 0 with a graph without."""
        raise NotImplementedError

    def find(
        self, outputs: SOLOOutputs, size: Size, image_sizes: Sequence[Size]
    ) -> list[Instances]:
        """See :class:`~.base.InstanceRepresentation`."""
        scores = [
            point_nms(level.float().sigmoid()).permute(0, 2, 3, 1).flatten(1, 2)
            for level in outputs.categories
        ]
        return [
            self._find(torch.cat([level[i] for level in scores]), outputs.masks, i, image)
            for i, image in enumerate(image_sizes)
        ]

    def _find(self, scores: Tensor, masks: Any, index: int, image_size: Size) -> Instances:
        """Of one image, from the scores (cells of all levels, K)."""
        hits = (scores > self.score_threshold).nonzero()
        cells, classes = hits[:, 0], hits[:, 1]
        scores = scores[cells, classes]
        # Before the network has learned there may be many: their masks would fill the memory.
        likely = falling(scores)[: 2 * self.pre_nms]
        cells, classes, scores = cells[likely], classes[likely], scores[likely]
        probabilities = self.masks_of(masks, index, cells)
        inside = probabilities > self.mask_threshold
        areas = inside.sum(dim=(1, 2))
        least = [n for n, grid in zip(self.strides, self.grids, strict=True) for _ in [0] * grid**2]
        large = areas > torch.tensor(least, device=cells.device)[cells]
        maskness = (probabilities * inside).sum(dim=(1, 2)) / areas.clamp(min=1)
        scores = torch.where(large, scores * maskness, -1.0)
        order = falling(scores)[: self.pre_nms]
        order = order[scores[order] >= 0]
        scores, classes, inside = scores[order], classes[order], inside[order]
        if self.nms == "matrix":
            scores = matrix_nms(inside, scores, classes, **self.nms_options)
            scores = torch.where(scores >= self.update_threshold, scores, -1.0)
        else:
            kept = mask_nms(inside, scores, classes, self.mask_threshold)
            scores = torch.where(kept, scores, -1.0)
        best = falling(scores)[: self.max_instances]
        best = best[scores[best] >= 0]
        found = Instances(image_size)
        found.scores, found.pred_classes = scores[best], classes[best]
        maps = probabilities[order[best]]
        found.pred_masks = DenseMasks(maps, self.mask_stride, self.mask_threshold)
        return found

    def masks_of(self, masks: Any, index: int, cells: Tensor) -> Tensor:
        """Probabilities (N, h, w) of the masks of some cells of an image, at `mask_stride`."""
        raise NotImplementedError


def point_nms(scores: Tensor) -> Tensor:
    """Keep (N, K, S, S) scores that no cell above, to the left or between these two exceeds."""
    greatest = F.max_pool2d(scores, 2, stride=1, padding=1)[..., :-1, :-1]
    return scores * (greatest == scores)
