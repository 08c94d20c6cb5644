"""CondInst (Tian et al. 2020): a point predicts the small network that finds its mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from torch import Tensor, nn

from ...config import ConfigError
from ..loss_terms import Sum
from .base import Features, Size, Truth, features_of, finer_stride
from .dynamic_masks import dynamic_masks, network_size
from .fcos import PointRepresentation, Scale
from .layers import dice_losses, prediction, resize, tower
from .mask_forms import DenseMasks
from .points import PointOutputs, Points, Positives, centerness


class _FCOSHead(nn.Module):
    """Categories, boxes and centerness of the points; parameters named as in AdelaiDet."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        num_convs: int,
        norm: str,
        num_classes: int,
        strides: Sequence[int],
        prior: float,
    ) -> None:
        super().__init__()
        self.strides = list(strides)
        self.cls_tower = tower(in_channels, channels, num_convs, norm, bias=True)
        self.bbox_tower = tower(in_channels, channels, num_convs, norm, bias=True)
        self.cls_logits = prediction(channels, num_classes, probability=prior)
        self.bbox_pred = prediction(channels, 4)
        self.ctrness = prediction(channels, 1)
        self.scales = nn.ModuleList(Scale() for _ in strides)

    def forward(self, maps: Sequence[Tensor], controller: nn.Module) -> PointOutputs:
        """All but what the masks share; the codes are the controller's."""
        found = PointOutputs([], [], [], [])
        for level, scale, stride in zip(maps, self.scales, self.strides, strict=True):
            boxes = self.bbox_tower(level)
            found.categories.append(self.cls_logits(self.cls_tower(level)))
            found.centerness.append(self.ctrness(boxes))
            found.sides.append(scale(self.bbox_pred(boxes)).relu() * stride)
            found.codes.append(controller(boxes))
        return found


class _MaskBranch(nn.Module):
    """The few maps that all masks share, from a pyramid; parameters named as in AdelaiDet."""

    def __init__(
        self,
        in_channels: int,
        levels: int,
        channels: int,
        num_convs: int,
        norm: str,
        out_channels: int,
        finer: int,
    ) -> None:
        super().__init__()
        self.finer = finer
        self.refine = nn.ModuleList(tower(in_channels, channels, 1, norm) for _ in range(levels))
        steps: list[nn.Module] = [tower(channels, channels, 1, norm) for _ in range(num_convs)]
        # PyTorch's initial values: the maps are to differ from the start, for a network that
        # multiplies them with small numbers.
        self.tower = nn.Sequential(*steps, nn.Conv2d(channels, out_channels, 1))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """(N, C, h, w) at the stride of the first map, or finer."""
        total = self.refine[0](maps[0])
        size = (total.shape[-2], total.shape[-1])
        for refine, level in zip(list(self.refine)[1:], maps[1:], strict=True):
            total = total + resize(refine(level), size)
        found = self.tower(total)
        return resize(found, (size[0] * self.finer, size[1] * self.finer))


class CondInst(PointRepresentation):
    """A mask is a small network of three 1x1 convolutions on shared maps, with a point's weights.

    The network also gets the way from each cell to the point, in units of what the point's level
    is for. The parameters have AdelaiDet's names below ``fcos_head``, ``controller`` and
    ``mask_branch``.
    """

    key = "MODEL.CONDINST"

    @configurable
    def __init__(
        self,
        *,
        in_channels: int,
        mask_in_features: Sequence[str],
        channels: int = 256,
        num_convs: int = 4,
        norm: str = "GN",
        prior: float = 0.01,
        mask_channels: int = 128,
        mask_num_convs: int = 4,
        mask_norm: str = "BN",
        mask_out_channels: int = 8,
        mask_upsampling: int = 1,
        mask_stride: int = 8,
        mask_out_stride: int = 4,
        head_channels: int = 8,
        head_layers: int = 3,
        max_proposals: int = 500,
        **shared: Any,
    ) -> None:
        """Build the head, the controller and the mask branch.

        Args:
            in_channels: of the features.
            mask_in_features: levels that the shared maps are made of, from fine to coarse.
            channels: of the towers.
            num_convs: of each tower.
            norm: of the towers.
            prior: probability of a category at first.
            mask_channels: of the mask branch.
            mask_num_convs: convolutions on the sum of its levels.
            mask_norm: of the mask branch.
            mask_out_channels: shared maps.
            mask_upsampling: they are so many times finer than their first level.
            mask_stride: of the shared maps, in pixels.
            mask_out_stride: of the masks; a divisor of `mask_stride`.
            head_channels: of the small network.
            head_layers: its convolutions, two or more.
            max_proposals: points of a batch at most whose masks training looks at, drawn at
                random; -1: all.
            **shared: see :class:`~.fcos.PointRepresentation`.

        Raises:
            ConfigError: strides or layers that cannot be.
        """
        super().__init__(**shared)
        if mask_out_stride < 1 or mask_stride % mask_out_stride:
            raise ConfigError(
                f"MODEL.CONDINST.MASK_OUT_STRIDE is a divisor of {mask_stride}, the stride of the "
                f"mask branch (its first feature's by MASK_BRANCH.UPSAMPLING), not "
                f"{mask_out_stride}"
            )
        if head_layers < 2:
            raise ConfigError(
                f"MODEL.CONDINST.MASK_HEAD.NUM_LAYERS must be 2 or more, not {head_layers}"
            )
        self.mask_in_features = list(mask_in_features)
        self.mask_out_stride, self.max_proposals = mask_out_stride, max_proposals
        widths = [mask_out_channels + 2] + [head_channels] * (head_layers - 1) + [1]
        self.layer_sizes = list(zip(widths[1:], widths[:-1], strict=True))
        self.fcos_head = _FCOSHead(
            in_channels, channels, num_convs, norm, self.num_classes, self.strides, prior
        )
        self.controller = prediction(channels, network_size(self.layer_sizes))
        self.mask_branch = _MaskBranch(
            in_channels,
            len(self.mask_in_features),
            mask_channels,
            mask_num_convs,
            mask_norm,
            mask_out_channels,
            mask_upsampling,
        )
        # The way to a point in units of its level's greatest object; the last level has none.
        borders = [high for _, high in self.ranges[:-1]] or [4.0 * self.strides[0]]
        self.units = [*borders[: len(self.ranges) - 1], 2 * borders[-1]]

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Arguments from ``MODEL.CONDINST``."""
        node = cfg.MODEL.CONDINST
        branch, names = node.MASK_BRANCH, node.MASK_BRANCH.IN_FEATURES
        key = "MODEL.CONDINST.MASK_BRANCH.IN_FEATURES"
        stride = features_of(input_shape, names, key)[0].stride
        return {
            **cls.shared_arguments(cfg, node, input_shape),
            "mask_in_features": names,
            "channels": node.CHANNELS,
            "num_convs": node.NUM_CONVS,
            "norm": node.NORM,
            "prior": node.PRIOR_PROB,
            "mask_channels": branch.CHANNELS,
            "mask_num_convs": branch.NUM_CONVS,
            "mask_norm": branch.NORM,
            "mask_out_channels": branch.OUT_CHANNELS,
            "mask_upsampling": branch.UPSAMPLING,
            "mask_stride": finer_stride(
                stride, branch.UPSAMPLING, "MODEL.CONDINST.MASK_BRANCH.UPSAMPLING"
            ),
            "mask_out_stride": node.MASK_OUT_STRIDE,
            "head_channels": node.MASK_HEAD.CHANNELS,
            "head_layers": node.MASK_HEAD.NUM_LAYERS,
            "max_proposals": node.MAX_PROPOSALS,
        }

    def layers(self, features: Features) -> PointOutputs:
        """With the weights of the small networks as codes, and the maps that they share."""
        found = self.fcos_head([features[name] for name in self.in_features], self.controller)
        shared = self.mask_branch([features[name] for name in self.mask_in_features])
        return found._replace(shared=shared)

    def code_losses(
        self, outputs: PointOutputs, positives: Positives, truths: Sequence[Truth], size: Size
    ) -> tuple[Tensor, Sum]:
        """FCOS's centerness, and the dice loss of the masks."""
        images, places, owners = positives.images, positives.places, positives.owners
        if 0 <= self.max_proposals < len(images):
            drawn = torch.randperm(len(images))[: self.max_proposals].to(images.device)
            images, places, owners = images[drawn], places[drawn], owners[drawn]
        points, total = self.points(outputs), positives.sides.new_zeros(())
        for index, truth in enumerate(truths):
            own = images == index
            found = self.mask_logits(outputs, index, points, places[own], size).sigmoid()
            target = truth.masks_at(self.mask_out_stride, size)[owners[own]]
            total = total + dice_losses(found, target).sum()
        return centerness(positives.sides), Sum(total, torch.tensor(len(images)))

    def rate(self, categories: Tensor, centerness: Tensor) -> tuple[Tensor, Tensor]:
        """The product is compared with the threshold; its root is the score."""
        product = categories * centerness
        return product, product.sqrt()

    def masks_of(
        self, outputs: PointOutputs, index: int, points: Points, places: Tensor, size: Size
    ) -> DenseMasks:
        """See :class:`~.fcos.PointRepresentation`."""
        logits = self.mask_logits(outputs, index, points, places, size)
        return DenseMasks(logits.sigmoid(), self.mask_out_stride)

    def mask_logits(
        self, outputs: PointOutputs, index: int, points: Points, places: Tensor, size: Size
    ) -> Tensor:
        """(N, rows, columns) float32 at the masks' stride; see :meth:`masks_of`."""
        shared = outputs.shared[index]  # type: ignore[index]  # CondInst has them
        codes = torch.cat([level[index].flatten(1) for level in outputs.codes], dim=1)[:, places].T
        units = points.xy.new_tensor(self.units)[points.levels[places]]
        logits = dynamic_masks(
            shared, codes, points.xy[places], units, size[0] / shared.shape[-2], self.layer_sizes
        )
        out = (size[0] // self.mask_out_stride, size[1] // self.mask_out_stride)
        return resize(logits[:, None], out)[:, 0]
