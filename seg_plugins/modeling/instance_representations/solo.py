"""SOLO (Wang et al. 2020): each cell of a grid has a category and a mask of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from torch import Tensor, nn

from ...ops.suppression import falling
from .base import Features, Size, Truth, features_of, finer_stride
from .grid import GridRepresentation, SOLOOutputs
from .layers import dice_losses, prediction, resize, tower, with_coordinates
from .solo_grid import GridTargets


class SOLO(GridRepresentation):
    """The mask of a cell is a channel of its own, S * S of them at each level.

    Two towers read each level: one, resized to the grid, gives the categories; the other, with
    the coordinates of its cells, is upsampled and gives the masks.
    """

    @configurable
    def __init__(
        self,
        *,
        in_channels: int,
        in_strides: Sequence[int],
        channels: int = 256,
        num_convs: int = 7,
        norm: str = "GN",
        prior: float = 0.01,
        mask_upsampling: int = 2,
        **shared: Any,
    ) -> None:
        """Build the towers.

        Args:
            in_channels: of the features.
            in_strides: of the features.
            channels: of the towers.
            num_convs: of each tower.
            norm: of the towers.
            prior: probability of a category at first.
            mask_upsampling: masks are so many times finer than the maps of their level.
            **shared: see :class:`GridRepresentation`.
        """
        super().__init__(**shared)
        self.mask_upsampling = mask_upsampling
        self.mask_strides = [
            finer_stride(stride, mask_upsampling, "MODEL.SOLO.MASK_UPSAMPLING")
            for stride in self.strides_of_levels(in_strides)
        ]
        self.mask_stride = self.mask_strides[0]
        self.mask_tower = tower(in_channels + 2, channels, num_convs, norm)
        self.category_tower = tower(in_channels, channels, num_convs, norm)
        self.category = prediction(channels, self.num_classes, probability=prior)
        self.masks = nn.ModuleList(
            prediction(channels, grid**2, kernel=1, probability=prior) for grid in self.grids
        )

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Arguments from ``MODEL.SOLO``."""
        node = cfg.MODEL.SOLO
        names = node.INSTANCE_IN_FEATURES
        shapes = features_of(input_shape, names, "MODEL.SOLO.INSTANCE_IN_FEATURES")
        return {
            **cls.shared_arguments(cfg, node),
            "in_channels": shapes[0].channels,
            "in_strides": [shape.stride for shape in shapes],
            "channels": node.INSTANCE_CHANNELS,
            "num_convs": node.NUM_INSTANCE_CONVS,
            "norm": node.NORM,
            "prior": node.PRIOR_PROB,
            "mask_upsampling": node.MASK_UPSAMPLING,
        }

    def layers(self, features: Features) -> SOLOOutputs:
        """See :class:`SOLOOutputs`."""
        categories, masks = [], []
        for level, grid, to_masks in zip(
            self.levels(features), self.grids, self.masks, strict=True
        ):
            mask = self.mask_tower(with_coordinates(level))
            if self.mask_upsampling > 1:
                mask = F.interpolate(
                    mask, scale_factor=self.mask_upsampling, mode="bilinear", align_corners=False
                )
            masks.append(to_masks(mask))
            categories.append(self.category(self.category_tower(resize(level, (grid, grid)))))
        return SOLOOutputs(categories, masks)

    def mask_loss(
        self,
        masks: list[Tensor],
        truths: Sequence[Truth],
        targets: Sequence[Sequence[GridTargets]],
        size: Size,
    ) -> Tensor:
        """See :class:`GridRepresentation`."""
        total = sum(level.float().sum() * 0.0 for level in masks)
        for level, maps in enumerate(masks):
            stride = self.mask_strides[level]
            for image, truth in enumerate(truths):
                part = targets[image][level]
                if len(part.cells):
                    target = truth.masks_at(stride, size)[part.owners]
                    found = maps[image, part.cells].float().sigmoid()
                    total = total + dice_losses(found, target).sum()
        return total

    def masks_of(self, masks: list[Tensor], index: int, cells: Tensor) -> Tensor:
        """The channels of the cells, at the size of the finest level."""
        fine = (masks[0].shape[-2], masks[0].shape[-1])
        start, parts, places = 0, [], []
        for grid, level in zip(self.grids, masks, strict=True):
            own = ((cells >= start) & (cells < start + grid**2)).nonzero()[:, 0]
            chosen = level[index][cells[own] - start].float().sigmoid()
            parts.append(resize(chosen[:, None], fine)[:, 0])
            places.append(own)
            start += grid**2
        return torch.cat(parts)[falling(-torch.cat(places))]
