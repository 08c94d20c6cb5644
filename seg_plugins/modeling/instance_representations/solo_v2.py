"""SOLOv2 (Wang et al. 2020): a cell predicts the kernel that finds its mask in shared features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from torch import Tensor, nn

from ..sem_seg_heads.base import full_precision
from .base import Features, Size, Truth, features_of, finer_stride
from .grid import GridRepresentation, SOLOOutputs
from .layers import dice_losses, prediction, resize, tower, with_coordinates
from .solo_grid import GridTargets


class _InstanceHead(nn.Module):
    """Categories and kernels of the cells; parameters named as in AdelaiDet."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        num_convs: int,
        norm: str,
        num_classes: int,
        kernel_size: int,
        prior: float,
    ) -> None:
        super().__init__()
        self.cate_tower = tower(in_channels, channels, num_convs, norm)
        self.kernel_tower = tower(in_channels + 2, channels, num_convs, norm)
        self.cate_pred = prediction(channels, num_classes, probability=prior)
        self.kernel_pred = prediction(channels, kernel_size)

    def forward(self, level: Tensor, grid: int) -> tuple[Tensor, Tensor]:
        """(N, K, S, S) categories and (N, D, S, S) kernels."""
        on_grid = resize(with_coordinates(level), (grid, grid))
        kernels = self.kernel_pred(self.kernel_tower(on_grid))
        return self.cate_pred(self.cate_tower(on_grid[:, :-2])), kernels


class _MaskHead(nn.Module):
    """One map of mask features from a pyramid; parameters named as in AdelaiDet."""

    def __init__(
        self, in_channels: int, levels: int, channels: int, out_channels: int, norm: str, finer: int
    ) -> None:
        super().__init__()
        self.finer = finer
        self.convs_all_levels = nn.ModuleList()
        for level in range(levels):
            steps = nn.Sequential()
            for step in range(max(level, 1)):
                given = in_channels if step == 0 else channels
                # The coarsest level knows where it is.
                given += 2 if step == 0 and level == levels - 1 else 0
                steps.add_module(f"conv{step}", tower(given, channels, 1, norm))
                if level:
                    up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
                    steps.add_module(f"upsample{step}", up)
            self.convs_all_levels.append(steps)
        self.conv_pred = tower(channels, out_channels, 1, norm, kernel=1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """(N, D, h, w) at the stride of the first map, or finer."""
        maps = [*maps[:-1], with_coordinates(maps[-1])]
        total = self.convs_all_levels[0](maps[0])
        for steps, level in zip(list(self.convs_all_levels)[1:], maps[1:], strict=True):
            total = total + steps(level)
        if self.finer > 1:
            size = (total.shape[-2] * self.finer, total.shape[-1] * self.finer)
            total = resize(total, size)
        return self.conv_pred(total)


class SOLOv2(GridRepresentation):
    """The mask of a cell is a 1x1 convolution of shared features with the kernel it predicts.

    The parameters have AdelaiDet's names below ``ins_head`` and ``mask_head``.
    """

    key = "MODEL.SOLOV2"

    @configurable
    def __init__(
        self,
        *,
        in_channels: int,
        mask_in_features: Sequence[str],
        mask_in_stride: int,
        channels: int = 512,
        num_convs: int = 4,
        norm: str = "GN",
        prior: float = 0.01,
        kernel_size: int = 256,
        mask_channels: int = 128,
        mask_upsampling: int = 1,
        **shared: Any,
    ) -> None:
        """Build both heads.

        Args:
            in_channels: of the features.
            mask_in_features: the levels that the mask features are made of, each of half the size
                of the one before.
            mask_in_stride: of the first of them.
            channels: of the towers.
            num_convs: of each tower.
            norm: of all convolutions but the predictions.
            prior: probability of a category at first.
            kernel_size: numbers of a kernel, and channels of the mask features.
            mask_channels: of the mask features before the last convolution.
            mask_upsampling: mask features are so many times finer than their first level.
            **shared: see :class:`~.grid.GridRepresentation`.
        """
        super().__init__(**shared)
        self.mask_in_features = list(mask_in_features)
        key = "MODEL.SOLOV2.MASK_UPSAMPLING"
        self.mask_stride = finer_stride(mask_in_stride, mask_upsampling, key)
        self.ins_head = _InstanceHead(
            in_channels, channels, num_convs, norm, self.num_classes, kernel_size, prior
        )
        levels = len(self.mask_in_features)
        self.mask_head = _MaskHead(
            in_channels, levels, mask_channels, kernel_size, norm, mask_upsampling
        )

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Arguments from ``MODEL.SOLOV2``."""
        node = cfg.MODEL.SOLOV2
        names = [*node.INSTANCE_IN_FEATURES, *node.MASK_IN_FEATURES]
        shapes = features_of(
            input_shape, names, "MODEL.SOLOV2.INSTANCE_IN_FEATURES and MASK_IN_FEATURES"
        )
        return {
            **cls.shared_arguments(cfg, node),
            "in_channels": shapes[0].channels,
            "mask_in_features": node.MASK_IN_FEATURES,
            "mask_in_stride": input_shape[node.MASK_IN_FEATURES[0]].stride,
            "channels": node.INSTANCE_CHANNELS,
            "num_convs": node.NUM_INSTANCE_CONVS,
            "norm": node.NORM,
            "prior": node.PRIOR_PROB,
            "kernel_size": node.NUM_KERNELS,
            "mask_channels": node.MASK_CHANNELS,
            "mask_upsampling": node.MASK_UPSAMPLING,
        }

    def layers(self, features: Features) -> SOLOOutputs:
        """Categories of each level; for the masks, the kernels (N, D, S, S) and the features."""
        categories, kernels = [], []
        for level, grid in zip(self.levels(features), self.grids, strict=True):
            category, kernel = self.ins_head(level, grid)
            categories.append(category)
            kernels.append(kernel)
        shared = self.mask_head([features[name] for name in self.mask_in_features])
        return SOLOOutputs(categories, (kernels, shared))

    def mask_loss(
        self,
        masks: tuple[list[Tensor], Tensor],
        truths: Sequence[Truth],
        targets: Sequence[Sequence[GridTargets]],
        size: Size,
    ) -> Tensor:
        """See :class:`~.grid.GridRepresentation`."""
        kernels, shared = masks
        total = sum((level.float().sum() * 0.0 for level in kernels), shared.float().sum() * 0.0)
        for image, truth in enumerate(truths):
            levels = list(zip(kernels, targets[image], strict=True))
            owners = torch.cat([part.owners for _, part in levels])
            if len(owners):
                chosen = [k[image].flatten(1)[:, part.cells].T for k, part in levels]
                found = _dynamic(torch.cat(chosen), shared[image]).sigmoid()
                target = truth.masks_at(self.mask_stride, size)[owners]
                total = total + dice_losses(found, target).sum()
        return total

    def masks_of(self, masks: tuple[list[Tensor], Tensor], index: int, cells: Tensor) -> Tensor:
        """The features of an image under the kernels of the cells."""
        kernels, shared = masks
        chosen = torch.cat([k[index].flatten(1) for k in kernels], dim=1)[:, cells].T
        return _dynamic(chosen, shared[index]).sigmoid()


def _dynamic(kernels: Tensor, features: Tensor) -> Tensor:
    """(N, D) kernels on (D, h, w) features: (N, h, w) logits in float32, as a matrix product."""
    with full_precision(features):
        found = kernels.float() @ features.float().flatten(1)
    return found.reshape(-1, *features.shape[1:])
