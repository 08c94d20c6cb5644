"""RoIAlign of one feature map as a module."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .roi_align_operator import roi_align


class ROIAlign(nn.Module):
    """:func:`roi_align` in the form of Detectron2's ``ROIAlign`` and torchvision's ``RoIAlign``.

    Like the function it can be traced, compiled and exported, but not scripted.

    Args:
        output_size: bins (h, w), or one number for a square.
        spatial_scale: pixels of the map per input pixel: 1 / stride.
        sampling_ratio: sampling points per bin and axis; 0 takes as many as the bin has pixels,
            rounded up.
        aligned: take pixel centers at half-integers. The default is Detectron2's; torchvision's
            is False, so write the argument out where code came from there.
    """

    def __init__(
        self,
        output_size: int | Sequence[int],
        spatial_scale: float,
        sampling_ratio: int,
        aligned: bool = True,
    ) -> None:
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned

    def forward(self, input: Tensor, rois: Tensor | Sequence[Tensor]) -> Tensor:
        """Pool boxes to (K, C, h, w), in the map's dtype and memory layout.

        Args:
            input: (N, C, H, W) map.
            rois: (K, 5) batch index, x0, y0, x1, y1 in input pixels; or one tensor (L, 4) of boxes
                per image.

        Raises:
            ValueError: the boxes have another shape.
            IndexError: a batch index is outside the batch.
        """
        if not isinstance(rois, Tensor):
            rois = _with_index(rois, input)
        return roi_align(
            input,
            rois,
            self.output_size,
            self.spatial_scale,
            self.sampling_ratio,
            self.aligned,
        )

    def extra_repr(self) -> str:
        """The arguments, as both peers print them."""
        names = ("output_size", "spatial_scale", "sampling_ratio", "aligned")
        return ", ".join(f"{name}={getattr(self, name)}" for name in names)


def _with_index(boxes: Sequence[Tensor], feature: Tensor) -> Tensor:
    for b in boxes:
        if b.ndim != 2 or b.shape[1] != 4:
            raise ValueError(
                f"ROIAlign: a list of boxes has a tensor (L, 4) per image, got {tuple(b.shape)}"
            )
    if not boxes:
        return feature.new_zeros(0, 5)
    indices = [torch.full_like(b[:, :1], i) for i, b in enumerate(boxes)]
    return torch.cat([torch.cat(indices), torch.cat(list(boxes))], dim=1)
