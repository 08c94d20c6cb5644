"""Detectron2's RoI pooler on this package's RoIAlign: all levels in one operator."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torchvision
from detectron2.layers import ROIAlign
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes
from torch import Tensor, nn

from ..ops import backend_report, roi_align
from ..ops.roi_align_reference import assign_levels


class _Kind(NamedTuple):
    aligned: bool
    reduce: str


POOLER_TYPES = {
    "ROIAlignV2": _Kind(aligned=True, reduce="avg"),
    "ROIAlign": _Kind(aligned=False, reduce="avg"),
    "ROIAlignMax": _Kind(aligned=True, reduce="max"),
    "ROIPool": None,  # torchvision's, for comparison
}


class FusedROIPooler(nn.Module):
    """Pool the boxes of each image from one feature map or a pyramid to a fixed size.

    Takes the arguments of ``detectron2.modeling.poolers.ROIPooler``, has no parameters, and gives
    the same result: the same level for each box, order, dtype and shape. One kernel does the work
    of that class's loop over levels, so nothing waits for the device, and outputs need not be
    square.

    Args:
        output_size: Bins (h, w), or one number for a square.
        scales: 1 / stride of each feature map, finest first; strides are powers of two.
        sampling_ratio: Sampling points per bin and axis; 0 chooses by the box's size.
        pooler_type: ``ROIAlignV2`` (half-pixel correct), ``ROIAlign`` (the original), both the
            mean of a bin's points; ``ROIAlignMax``, their maximum; ``ROIPool`` (Fast R-CNN).
        canonical_box_size: Side in input pixels of a box that belongs to ``canonical_level``.
        canonical_level: Level (log2 of the stride) of such a box.

    Raises:
        ValueError: The scales are no pyramid, or the pooler type is unknown.
    """

    def __init__(
        self,
        output_size: int | Sequence[int],
        scales: Sequence[float],
        sampling_ratio: int,
        pooler_type: str,
        canonical_box_size: int = 224,
        canonical_level: int = 4,
    ):
        super().__init__()
        if pooler_type not in POOLER_TYPES:
            raise ValueError(
                f"unknown POOLER_TYPE {pooler_type!r}; choose one of {', '.join(POOLER_TYPES)}"
            )
        if canonical_box_size <= 0:
            raise ValueError(f"canonical_box_size must be positive, got {canonical_box_size}")
        levels = [-math.log2(scale) for scale in scales]
        expected = [round(levels[0]) + i for i in range(len(levels))]
        if levels[0] < 0 or not all(map(math.isclose, levels, expected)):
            raise ValueError(
                f"scales must be 1 / a power of two and halve from level to level, got {scales}"
            )
        size = [output_size] * 2 if isinstance(output_size, int) else list(output_size)
        self.output_size = (size[0], size[1])
        self.scales = list(scales)
        self.sampling_ratio = sampling_ratio
        self.pooler_type = pooler_type
        self.min_level, self.max_level = expected[0], expected[-1]
        self.canonical_box_size = canonical_box_size
        self.canonical_level = canonical_level
        chosen = backend_report().chosen
        logging.getLogger(__name__).info(
            "%s pooler; RoIAlign backend by device: %s", pooler_type, chosen
        )

    @classmethod
    def like(cls, pooler: ROIPooler, pooler_type: str = "") -> FusedROIPooler:
        """One with the settings of Detectron2's.

        Args:
            pooler: the one to replace; see :func:`fuse_poolers`.
            pooler_type: another type than that of `pooler`.

        Raises:
            ValueError: its type, e.g. ``ROIAlignRotated``, has no fused form.
        """
        levels = list(pooler.level_poolers)
        return cls(
            output_size=pooler.output_size,
            scales=[level.spatial_scale for level in levels],
            sampling_ratio=getattr(levels[0], "sampling_ratio", 0),  # RoIPool has none
            pooler_type=pooler_type or _type_of(levels[0]),
            canonical_box_size=pooler.canonical_box_size,
            canonical_level=pooler.canonical_level,
        )

    def extra_repr(self) -> str:
        """The arguments, for ``print(model)``."""
        return (
            f"output_size={self.output_size}, scales={self.scales}, "
            f"sampling_ratio={self.sampling_ratio}, pooler_type={self.pooler_type}"
        )

    def forward(self, x: list[Tensor], box_lists: list[Boxes]) -> Tensor:
        """Pool all boxes.

        Args:
            x: A map (N, C, H, W) per scale.
            box_lists: The boxes of each of the N images, in input pixels.

        Returns:
            (M, C, h, w), M boxes in the order of the images, in the maps' dtype and layout.

        Raises:
            ValueError: The number of maps or of images is not as expected.
        """
        if len(x) != len(self.scales):
            raise ValueError(f"the pooler has {len(self.scales)} scales but got {len(x)} maps")
        if len(box_lists) != x[0].shape[0]:
            raise ValueError(
                f"boxes of {len(box_lists)} images, but the maps' batch is {x[0].shape[0]}"
            )
        if not box_lists:
            return x[0].new_zeros(0, x[0].shape[1], *self.output_size)
        boxes = boxes_with_index(box_lists)
        kind = POOLER_TYPES[self.pooler_type]
        if kind is None:
            return self._roi_pool(x, boxes)
        return roi_align(
            x,
            boxes,
            self.output_size,
            self.scales,
            self.sampling_ratio,
            kind.aligned,
            kind.reduce,
            self.canonical_box_size,
            self.canonical_level,
            self.min_level,
        )

    def _roi_pool(self, x: list[Tensor], boxes: Tensor) -> Tensor:
        levels = assign_levels(
            boxes, len(x), self.canonical_box_size, self.canonical_level, self.min_level
        )
        output = x[0].new_zeros(len(boxes), x[0].shape[1], *self.output_size)
        # At least float32: torchvision has no bfloat16 form, and box corners need the precision.
        compute = torch.promote_types(x[0].dtype, torch.float32)
        for level, (feature, scale) in enumerate(zip(x, self.scales, strict=True)):
            index = (levels == level).nonzero().squeeze(1)
            pooled = torchvision.ops.roi_pool(
                feature.to(compute), boxes[index].to(compute), self.output_size, scale
            )
            output = output.index_put((index,), pooled.to(output.dtype))
        return output


def boxes_with_index(box_lists: list[Boxes]) -> Tensor:
    """Concatenate the boxes of N images to (M, 5): image index, x0, y0, x1, y1.

    The counts are known to the host, so that no device is waited for.
    """
    tensors = [boxes.tensor for boxes in box_lists]
    indices = [torch.full_like(t[:, :1], i) for i, t in enumerate(tensors)]
    return torch.cat([torch.cat(indices), torch.cat(tensors)], dim=1)


def fuse_poolers(roi_heads: nn.Module) -> None:
    """Put a FusedROIPooler in the place of each ``ROIPooler`` that RoI heads have as a child.

    Poolers of other classes, subclasses too, stay, and so does one for rotated boxes.
    """
    for name, child in list(roi_heads.named_children()):
        if type(child) is ROIPooler and _type_of(child.level_poolers[0]) in POOLER_TYPES:
            setattr(roi_heads, name, FusedROIPooler.like(child))


def _type_of(level: nn.Module) -> str:
    """The POOLER_TYPE for which Detectron2 builds such a level."""
    if isinstance(level, ROIAlign):
        return "ROIAlignV2" if level.aligned else "ROIAlign"
    return "ROIPool" if isinstance(level, torchvision.ops.RoIPool) else type(level).__name__
