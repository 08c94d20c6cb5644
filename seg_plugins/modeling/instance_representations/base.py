"""What every instance representation shares: the contract, the registry and the truth."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.structures import BitMasks, Instances, PolygonMasks
from fvcore.common.registry import Registry
from torch import Tensor, nn

from ...config import ConfigError
from ..loss_terms import Losses

# Bitmasks are brought to a grid together up to so many pixels: as numbers they take more.
_PIXELS_AT_ONCE = 1 << 24

Features = dict[str, Tensor]
Size = tuple[int, int]

INSTANCE_REPRESENTATION_REGISTRY = Registry("INSTANCE_REPRESENTATION")
INSTANCE_REPRESENTATION_REGISTRY.__doc__ = """
Instance representations by name. Called with a configuration and the backbone's output shape, an
entry returns an :class:`InstanceRepresentation`.
"""


class InstanceRepresentation(nn.Module):
    """How one-stage systems write down an instance, and read it back.

    A location (grid cell, point, anchor, window) has a category and a code; the code, alone or
    with maps that all share, gives the mask; suppression drops what was found twice. A subclass is
    one file: :meth:`layers`, :meth:`losses` and :meth:`find`.

    Attributes:
        num_classes: of the instances, K.
    """

    num_classes: int

    def layers(self, features: Features) -> Any:
        """What the network says about all locations, before anything is chosen.

        Args:
            features: of the backbone, of a padded batch.
        """
        raise NotImplementedError

    def losses(self, outputs: Any, truths: Sequence[Truth], size: Size) -> Losses:
        """Losses of a batch.

        Args:
            outputs: of :meth:`layers`, in training.
            truths: one for each image; one without objects has losses too.
            size: rows and columns of the padded batch.
        """
        raise NotImplementedError

    def find(self, outputs: Any, size: Size, image_sizes: Sequence[Size]) -> list[Instances]:
        """The instances of each image, suppressed, by falling score.

        Args:
            outputs: of :meth:`layers`.
            size: rows and columns of the padded batch.
            image_sizes: rows and columns of each image without padding.

        Returns:
            For each image Instances of its size with ``scores``, ``pred_classes`` and
            ``pred_masks``, a :class:`~.mask_forms.MaskForm`.
        """
        raise NotImplementedError

    def forward(self, features: Features) -> Any:
        """See :meth:`layers`."""
        return self.layers(features)


def build_representation(
    cfg: CfgNode, input_shape: dict[str, ShapeSpec], name: str = ""
) -> InstanceRepresentation:
    """The representation of that name, or that ``MODEL.ONE_STAGE.REPRESENTATION`` names.

    Raises:
        ConfigError: there is none of that name.
    """
    name = name or cfg.MODEL.ONE_STAGE.REPRESENTATION
    if name not in INSTANCE_REPRESENTATION_REGISTRY:
        known = ", ".join(sorted(known for known, _ in INSTANCE_REPRESENTATION_REGISTRY))
        raise ConfigError(
            f"MODEL.ONE_STAGE.REPRESENTATION {name!r} is unknown; known are {known}. One of your "
            "own is registered in INSTANCE_REPRESENTATION_REGISTRY by a file that --import names."
        )
    return INSTANCE_REPRESENTATION_REGISTRY.get(name)(cfg, input_shape)


def features_of(
    input_shape: dict[str, ShapeSpec], names: Sequence[str], key: str
) -> list[ShapeSpec]:
    """The shapes of the features that a representation reads, which share their channels.

    Args:
        input_shape: of the backbone.
        names: of the features, from fine to coarse.
        key: that has the names.

    Raises:
        ConfigError: the backbone lacks one, or they differ in channels.
    """
    missing = [name for name in dict.fromkeys(names) if name not in input_shape]
    given = ", ".join(f"{name} (stride {s.stride})" for name, s in input_shape.items())
    if missing or not names:
        more = (
            " p6 and p7 come from MODEL.FPN.TOP_BLOCK p6p7 with MODEL.BACKBONE.NAME "
            "build_resnet_extended_fpn_backbone or build_timm_fpn_backbone."
            if {"p6", "p7"} & set(missing)
            else ""
        )
        raise ConfigError(f"{key} names {missing or 'no feature'}; the backbone has {given}.{more}")
    shapes = [input_shape[name] for name in names]
    if len({shape.channels for shape in shapes}) > 1:
        raise ConfigError(
            f"{key} {list(names)} must be features of equal channels, as those of a pyramid; the "
            f"backbone has {', '.join(f'{n} ({input_shape[n].channels})' for n in names)}"
        )
    return shapes


def finer_stride(stride: int, times: int, key: str) -> int:
    """The stride of maps that are so many times finer than those of a stride.

    Raises:
        ConfigError: it is no whole number of pixels; `key` is what to change.
    """
    if times < 1 or stride % times:
        raise ConfigError(
            f"{key} {times} must divide {stride}, the stride of what is made finer: masks lie on a "
            "grid of whole pixels"
        )
    return stride // times


class Truth:
    """The objects of one image in training.

    Args:
        instances: ``gt_classes``, ``gt_boxes`` and ``gt_masks``, bitmasks or polygons.
        device: where they are wanted.

    Attributes:
        classes: (n,) int64.
        boxes: (n, 4) x0, y0, x1, y1 in pixels of the augmented image.
        image_size: rows and columns.
    """

    def __init__(self, instances: Instances, device: torch.device) -> None:
        self.image_size: Size = instances.image_size
        self.classes = instances.gt_classes.to(device)
        self.boxes = instances.gt_boxes.tensor.to(device)
        self._masks = instances.gt_masks
        self._device = device
        self._at: dict[tuple[int, ...], Tensor] = {}

    def __len__(self) -> int:
        return len(self.classes)

    @cached_property
    def bitmasks(self) -> Tensor:
        """(n, height, width) bool."""
        masks = self._masks
        if isinstance(masks, PolygonMasks):
            masks = BitMasks.from_polygon_masks(masks, *self.image_size)
        return masks.tensor.to(self._device).reshape(len(self), *self.image_size)

    @cached_property
    def areas(self) -> Tensor:
        """(n,) pixels of each mask."""
        return self.bitmasks.flatten(1).sum(dim=1)

    @cached_property
    def centers(self) -> Tensor:
        """(n, 2) float64: x, y of the masks' centres of mass; of the box's of an empty mask."""
        middles = (self.boxes[:, :2] + self.boxes[:, 2:]).double() / 2
        weights = self.areas.clamp(min=1).double()
        sums = []
        for dim in (1, 2):  # columns keep x, rows keep y
            counts = self.bitmasks.sum(dim=dim).double()
            places = torch.arange(counts.shape[1], device=counts.device) + 0.5
            sums.append((counts * places).sum(dim=1) / weights)
        return torch.where(self.areas[:, None] > 0, torch.stack(sums, dim=1), middles)

    def masks_at(self, stride: int, size: Size) -> Tensor:
        """Masks on a grid of the padded image: cells of which at least half is covered.

        An object that covers half of no cell keeps the cells it touches, so that none vanishes.

        Args:
            stride: pixels by cell, a divisor of the padded size.
            size: rows and columns of the padded batch.

        Returns:
            (n, rows / stride, columns / stride) float32, 0 or 1.
        """
        key = (stride, *size)  # several levels have the same stride
        if key not in self._at:
            grid = (size[0] // stride, size[1] // stride)
            at_once = max(_PIXELS_AT_ONCE // (self.image_size[0] * self.image_size[1]), 1)
            parts = [_on_grid(masks, stride, grid) for masks in self.bitmasks.split(at_once)]
            self._at[key] = torch.cat(parts)
        return self._at[key]


def _on_grid(bitmasks: Tensor, stride: int, grid: Size) -> Tensor:
    if not len(bitmasks):
        return torch.zeros(0, *grid, device=bitmasks.device)
    height, width = bitmasks.shape[1:]
    cells = F.pad(bitmasks.float(), (0, -width % stride, 0, -height % stride))
    covered = F.avg_pool2d(cells[:, None], stride)[:, 0] if stride > 1 else cells
    half = covered >= 0.5
    lost = ~half.flatten(1).any(dim=1)
    half = torch.where(lost[:, None, None], covered > 0, half).float()
    return F.pad(half, (0, grid[1] - half.shape[2], 0, grid[0] - half.shape[1]))
