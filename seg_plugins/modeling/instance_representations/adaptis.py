"""AdaptIS (Sofiiuk et al. 2019): a point on an object gives its mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.structures import Instances
from torch import Tensor

from ...config import ConfigError
from ...ops.suppression import falling, occupancy_suppression
from ..loss_terms import Losses, Sum
from ..sem_seg_heads.base import full_precision
from .adaptis_network import (
    MaskNetwork,
    PointController,
    ProposalHead,
    as_at_inference,
    enlarged,
    features_at,
    relative_coordinates,
)
from .adaptis_points import (
    Points,
    candidate_points,
    draw_points,
    normalized_focal_losses,
    point_labels,
)
from .base import Features, InstanceRepresentation, Size, Truth, features_of
from .mask_forms import DenseMasks

STAGES = ("joint", "masks", "proposals")


class AdaptISOutputs(NamedTuple):
    """What AdaptIS's network says before any point is chosen.

    Attributes:
        features: (N, C, h, w) of the backbone.
        shared: (N, D, h, w), see :meth:`~.adaptis_network.MaskNetwork.shared`.
        proposals: (N, 1, h, w) logits: how good a cell is as the point of a mask.
        semantic: (N, L, H, W) logits of the semantic labels, which the system adds for
            :meth:`AdaptIS.find`.
    """

    features: Tensor
    shared: Tensor
    proposals: Tensor
    semantic: Tensor | None = None


class AdaptIS(InstanceRepresentation):
    """A small network draws the mask of the object at a point, adapted by the point's feature.

    The points come from a map of proposals. Classes come from semantic labels, which the
    meta-architecture of the same name gives: the representation has none.
    """

    @configurable
    def __init__(
        self,
        *,
        num_classes: int,
        thing_ids: Sequence[int],
        in_feature: str,
        in_channels: int,
        stride: int,
        stage: str = "joint",
        code_size: int = 128,
        channels: int = 128,
        proposal_channels: int = 128,
        separable: bool = True,
        norm: str = "BN",
        radius: float = 280.0,
        points: int = 6,
        proposal_points: int = 48,
        alpha: float = 0.25,
        gamma: float = 2.0,
        mask_weight: float = 1.0,
        proposal_weight: float = 1.0,
        proposal_threshold: float = 0.5,
        thing_threshold: float = 0.5,
        mask_threshold: float = 0.5,
        max_candidates: int = 100,
        min_area: int = 10,
        max_taken: float = 0.4,
        max_instances: int = 100,
        pixels_at_once: int = 1 << 22,
    ) -> None:
        """Build the networks.

        Args:
            num_classes: K.
            thing_ids: the semantic label of each class.
            in_feature: name of the feature that is read.
            in_channels: its channels.
            stride: its stride.
            stage: ``masks`` and then ``proposals`` are the paper's two stages: in the second one
                everything but the proposal head is frozen. ``joint`` does both at once.
            code_size: numbers of a point's code.
            channels: of the mask network.
            proposal_channels: of the proposal head.
            separable: see :class:`~.adaptis_network.MaskNetwork`.
            norm: of all layers; batch norm takes at least two points.
            radius: see :func:`~.adaptis_network.relative_coordinates`.
            points: drawn on the objects of an image, for the masks.
            proposal_points: drawn on one object of an image, for the proposals.
            alpha: see :func:`~.adaptis_points.normalized_focal_losses`.
            gamma: the same.
            mask_weight: factor of that loss.
            proposal_weight: factor of the proposals' cross-entropy.
            proposal_threshold: least probability of a proposal.
            thing_threshold: least probability of all things together where a point may lie.
            mask_threshold: of a pixel's probability.
            max_candidates: points at most, the best of an image, whose masks are looked at.
            min_area: see :func:`~seg_plugins.ops.suppression.occupancy_suppression`.
            max_taken: the same.
            max_instances: of an image.
            pixels_at_once: masks are drawn together up to so many pixels of the image.

        Raises:
            ConfigError: an unknown stage, or too few points.
        """
        super().__init__()
        if stage not in STAGES:
            raise ConfigError(f"MODEL.ADAPTIS.STAGE is {', '.join(STAGES)}, not {stage!r}")
        if points < 2 or proposal_points < 2:
            raise ConfigError(
                "MODEL.ADAPTIS.NUM_POINTS and NUM_PROPOSAL_POINTS must be at least 2, got "
                f"{points} and {proposal_points}: points are compared, and normalised together"
            )
        self.num_classes, self.in_feature, self.stride = num_classes, in_feature, stride
        self.stage, self.radius = stage, radius
        self.points, self.proposal_points = points, proposal_points
        self.alpha, self.gamma = alpha, gamma
        self.mask_weight, self.proposal_weight = mask_weight, proposal_weight
        self.proposal_threshold, self.thing_threshold = proposal_threshold, thing_threshold
        self.mask_threshold, self.max_candidates = mask_threshold, max_candidates
        self.min_area, self.max_taken, self.max_instances = min_area, max_taken, max_instances
        self.pixels_at_once = pixels_at_once
        self.register_buffer("thing_ids", torch.tensor(list(thing_ids)), persistent=False)
        self.controller = PointController(in_channels, code_size, norm)
        self.mask_network = MaskNetwork(in_channels, channels, code_size, norm, separable)
        self.proposal_head = ProposalHead(in_channels, proposal_channels, norm, separable)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Arguments from ``MODEL.ADAPTIS``.

        Raises:
            ConfigError: the system gives no semantic labels.
        """
        node = cfg.MODEL.ADAPTIS
        if cfg.MODEL.META_ARCHITECTURE in ("OneStageInstanceSegmentor", "PanopticSegmentor"):
            raise ConfigError(
                "MODEL.ONE_STAGE.REPRESENTATION AdaptIS takes its classes from semantic labels: "
                "set MODEL.META_ARCHITECTURE AdaptIS, which is panoptic by itself, and "
                "REPRESENTATION ''"
            )
        (shape,) = features_of(input_shape, [node.IN_FEATURE], "MODEL.ADAPTIS.IN_FEATURE")
        things = cfg.MODEL.ROI_HEADS.NUM_CLASSES
        return {
            "num_classes": things,
            "thing_ids": cfg.MODEL.PANOPTIC_FPN.THING_IDS or range(things),
            "in_feature": node.IN_FEATURE,
            "in_channels": shape.channels,
            "stride": shape.stride,
            "stage": node.STAGE,
            "code_size": node.CODE_SIZE,
            "channels": node.MASK_CHANNELS,
            "proposal_channels": node.PROPOSAL_CHANNELS,
            "separable": node.SEPARABLE_CONVS,
            "norm": node.NORM,
            "radius": node.NORM_RADIUS,
            "points": node.NUM_POINTS,
            "proposal_points": node.NUM_PROPOSAL_POINTS,
            "alpha": node.LOSS.FOCAL_ALPHA,
            "gamma": node.LOSS.FOCAL_GAMMA,
            "mask_weight": node.LOSS.MASK_WEIGHT,
            "proposal_weight": node.LOSS.PROPOSAL_WEIGHT,
            "proposal_threshold": node.PROPOSAL_THR,
            "thing_threshold": node.THING_THR,
            "mask_threshold": node.MASK_THR,
            "max_candidates": node.MAX_CANDIDATES,
            "min_area": node.MIN_AREA,
            "max_taken": node.MAX_TAKEN,
            "max_instances": cfg.TEST.DETECTIONS_PER_IMAGE,
        }

    def layers(self, features: Features) -> AdaptISOutputs:
        """See :class:`AdaptISOutputs`; the proposals' gradient ends at the features."""
        read = features[self.in_feature]
        shared = self.mask_network.shared(read)
        return AdaptISOutputs(read, shared, self.proposal_head(read.detach()))

    def masks_at(
        self, outputs: AdaptISOutputs, points: Tensor, images: Tensor, size: Size
    ) -> Tensor:
        """Logits (M, h, w) of the objects at points.

        Args:
            outputs: of :meth:`layers`, of N images.
            points: (M, 2) x, y in pixels, as many of each image, image after image.
            images: (M,) the image of each.
            size: rows and columns of the padded batch.
        """
        count = len(outputs.features)
        at = features_at(outputs.features, points.reshape(count, -1, 2), size).flatten(0, 1)
        grid = (outputs.shared.shape[-2], outputs.shared.shape[-1])
        places = relative_coordinates(points, grid, self.stride, self.radius)
        return self.mask_network(outputs.shared, images, self.controller(at), places)

    def losses(self, outputs: AdaptISOutputs, truths: Sequence[Truth], size: Size) -> Losses:
        """``loss_mask`` and ``loss_proposal``, means over the points; those of the stage."""
        losses = Losses()
        if self.stage != "proposals":
            drawn = draw_points(truths, self.points, size)
            logits = self.masks_at(outputs, drawn.positions, drawn.images, size)
            options = {"alpha": self.alpha, "gamma": self.gamma}
            full = enlarged(logits, size)
            each = normalized_focal_losses(full, drawn.masks, drawn.valid, **options)
            losses["loss_mask"] = Sum(each.sum() * self.mask_weight, drawn.used.sum())
        if self.stage != "masks":
            drawn = draw_points(truths, self.proposal_points, size, one_object=True)
            losses["loss_proposal"] = self._proposal_loss(outputs, drawn, size)
        return losses

    def _proposal_loss(self, outputs: AdaptISOutputs, drawn: Points, size: Size) -> Sum:
        """Cross-entropy at the points, against how good the masks are that they give now."""
        with torch.no_grad(), as_at_inference(self.controller, self.mask_network):
            logits = self.masks_at(outputs, drawn.positions, drawn.images, size)
            by_object = (len(outputs.features), -1, *size)
            labels, found = point_labels(
                enlarged(logits, size).sigmoid().reshape(by_object),
                drawn.masks.reshape(by_object),
                threshold=self.mask_threshold,
            )
        positions = drawn.positions.reshape(*labels.shape, 2)
        with full_precision(outputs.proposals):
            at = features_at(outputs.proposals, positions, size)[..., 0]
            each = F.binary_cross_entropy_with_logits(at, labels, reduction="none")
        used = (drawn.used.reshape(labels.shape) & found[:, None]).to(each.dtype)
        return Sum((each * used).sum() * self.proposal_weight, used.sum().long())

    def find(
        self, outputs: AdaptISOutputs, size: Size, image_sizes: Sequence[Size]
    ) -> list[Instances]:
        """The instances of each image, from proposals and semantic labels.

        Args:
            outputs: with ``semantic``.
            size: rows and columns of the padded batch.
            image_sizes: rows and columns of each image without padding.
        """
        semantic = outputs.semantic
        if semantic is None:
            raise ValueError("AdaptIS finds no instances without outputs.semantic")
        found = []
        for index, image_size in enumerate(image_sizes):
            one = slice(index, index + 1)
            parts = (outputs.features[one], outputs.shared[one], outputs.proposals[one])
            found.append(self._find(AdaptISOutputs(*parts), semantic[index], size, image_size))
        return found

    def _find(
        self, outputs: AdaptISOutputs, semantic: Tensor, size: Size, image_size: Size
    ) -> Instances:
        """Of one image, from its semantic logits (L, H, W)."""
        of_things = semantic[:, : size[0], : size[1]].float().softmax(dim=0)[self.thing_ids]
        points, values = candidate_points(
            outputs.proposals[0, 0],
            of_things,
            image_size,
            stride=self.stride,
            proposal_threshold=self.proposal_threshold,
            thing_threshold=self.thing_threshold,
            limit=self.max_candidates,
        )
        height, width = image_size
        inside = of_things[:, :height, :width].flatten(1)
        maps, masks, class_sums, certainties = [], [], [], []
        # Where tracing follows, all at once: a number of parts would be a constant.
        tracing = torch.jit.is_tracing()
        step = len(points) if tracing else max(self.pixels_at_once // (size[0] * size[1]), 1)
        for start in range(0, len(points), step):
            part = points[start : start + step]
            images = torch.zeros(len(part), dtype=torch.int64, device=part.device)
            grid = self.masks_at(outputs, part, images, size).float().sigmoid()
            full = enlarged(grid, size)[:, :height, :width]
            mask = full > self.mask_threshold
            maps.append(grid)
            masks.append(mask)
            certainties.append((full * mask).flatten(1).sum(dim=1))
            with full_precision(full):
                class_sums.append(mask.flatten(1).float() @ inside.T)
        claimed = torch.cat(masks)
        areas = claimed.flatten(1).sum(dim=1).clamp(min=1)
        # One candidate may be below the threshold; all that are, where tracing fixes their number.
        claimed = claimed & (values > self.proposal_threshold)[:, None, None]
        # Of an image without a cell's centre the one candidate lies outside, and is no mask.
        x, y = points[:, 0].long().clamp(max=width - 1), points[:, 1].long().clamp(max=height - 1)
        starts = y * width + x
        kept = occupancy_suppression(
            claimed, values, min_area=self.min_area, max_taken=self.max_taken, points=starts
        )
        likelihoods, classes = (torch.cat(class_sums) / areas[:, None]).max(dim=1)
        scores = likelihoods * torch.cat(certainties) / areas
        scores = torch.where(kept, scores, -1.0)
        best = falling(scores)[: self.max_instances]
        best = best[scores[best] >= 0]
        found = Instances(image_size)
        found.scores, found.pred_classes = scores[best], classes[best]
        found.pred_masks = DenseMasks(torch.cat(maps)[best], self.stride, self.mask_threshold)
        return found
