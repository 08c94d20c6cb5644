"""PolarMask (Xie et al. 2020): a mask is the lengths of rays from a point to its outline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from torch import Tensor, nn

from ...config import ConfigError
from ..loss_terms import Sum
from .base import Features, Size, Truth
from .fcos import PointRepresentation, Scale, weighed
from .layers import prediction, tower
from .mask_forms import OutlineMasks
from .points import PointOutputs, Points, Positives, flat
from .polar import outlines, polar_centerness, polar_iou_losses, rays_of

# Logarithms of lengths end here, at 22,026 pixels: a greater one would end in infinity.
_MOST = 10.0


class PolarMask(PointRepresentation):
    """Three towers: categories with polar centerness, boxes, rays.

    A mask is the polygon of its rays' ends: holes and dents that a ray would have to cross twice
    are filled.
    """

    key = "MODEL.POLARMASK"

    @configurable
    def __init__(
        self,
        *,
        in_channels: int,
        channels: int = 256,
        num_convs: int = 4,
        norm: str = "GN",
        prior: float = 0.01,
        num_rays: int = 36,
        centerness_factor: float = 0.5,
        by_stride: bool = False,
        **shared: Any,
    ) -> None:
        """Build the towers.

        Args:
            in_channels: of the features.
            channels: of the towers.
            num_convs: of each tower.
            norm: of the towers.
            prior: probability of a category at first.
            num_rays: R, three or more.
            centerness_factor: added to the centerness that a score is multiplied with.
            by_stride: lengths are predicted in strides of the level, not in pixels.
            **shared: see :class:`~.fcos.PointRepresentation`.

        Raises:
            ConfigError: fewer than three rays.
        """
        super().__init__(**shared)
        if num_rays < 3:
            raise ConfigError(f"MODEL.POLARMASK.NUM_RAYS must be 3 or more, not {num_rays}")
        self.num_rays, self.centerness_factor = num_rays, centerness_factor
        self.units = [stride if by_stride else 1 for stride in self.strides]
        self.category_tower, self.box_tower, self.mask_tower = (
            tower(in_channels, channels, num_convs, norm) for _ in range(3)
        )
        self.category = prediction(channels, self.num_classes, probability=prior)
        self.centerness = prediction(channels, 1)
        self.sides, self.rays = prediction(channels, 4), prediction(channels, num_rays)
        self.side_scales = nn.ModuleList(Scale() for _ in self.strides)
        self.ray_scales = nn.ModuleList(Scale() for _ in self.strides)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Arguments from ``MODEL.POLARMASK``."""
        node = cfg.MODEL.POLARMASK
        return {
            **cls.shared_arguments(cfg, node, input_shape),
            "channels": node.CHANNELS,
            "num_convs": node.NUM_CONVS,
            "norm": node.NORM,
            "prior": node.PRIOR_PROB,
            "num_rays": node.NUM_RAYS,
            "centerness_factor": node.CENTERNESS_FACTOR,
            "by_stride": node.NORM_BY_STRIDE,
        }

    def layers(self, features: Features) -> PointOutputs:
        """With the lengths of the rays in pixels as codes."""
        found = PointOutputs([], [], [], [])
        scales = zip(self.side_scales, self.ray_scales, self.units, strict=True)
        for name, (side_scale, ray_scale, unit) in zip(self.in_features, scales, strict=True):
            level = features[name]
            categories = self.category_tower(level)
            found.categories.append(self.category(categories))
            found.centerness.append(self.centerness(categories))
            sides = side_scale(self.sides(self.box_tower(level)))
            rays = ray_scale(self.rays(self.mask_tower(level)))
            found.sides.append(sides.clamp(max=_MOST).exp() * unit)
            found.codes.append(rays.clamp(max=_MOST).exp() * unit)
        return found

    def code_losses(
        self, outputs: PointOutputs, positives: Positives, truths: Sequence[Truth], size: Size
    ) -> tuple[Tensor, Sum]:
        """Polar centerness, and the polar IoU loss weighed by it."""
        rays = positives.sides.new_zeros(len(positives.images), self.num_rays)
        for index, truth in enumerate(truths):
            own = (positives.images == index).nonzero()[:, 0]
            owners, xy = positives.owners[own], positives.xy[own]
            rays[own] = rays_of(truth.bitmasks, truth.boxes, owners, xy, self.num_rays)
        centerness = polar_centerness(rays)
        found = flat(outputs.codes)[positives.images, positives.places]
        return centerness, weighed(polar_iou_losses(found, rays), centerness)

    def rate(self, categories: Tensor, centerness: Tensor) -> tuple[Tensor, Tensor]:
        """The category is compared with the threshold; the score is at most 1.

        Polar centerness is small, hence the factor that is added to it (the reference's; it does
        not divide by the most that can be, so that its scores go to 1.5).
        """
        factor = self.centerness_factor
        return categories, categories * (centerness + factor) / (1 + factor)

    def masks_of(
        self, outputs: PointOutputs, index: int, points: Points, places: Tensor, size: Size
    ) -> OutlineMasks:
        """See :class:`~.fcos.PointRepresentation`."""
        codes = torch.cat([level[index].flatten(1) for level in outputs.codes], dim=1)
        return OutlineMasks(outlines(points.xy[places], codes[:, places].T.float()))
