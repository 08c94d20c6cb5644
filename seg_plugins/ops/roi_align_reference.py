"""RoIAlign in plain PyTorch, one RoI and one bin at a time: slow, obvious, and the oracle.

Nothing here is shared with the compiled kernels or with torchvision. It follows section 3 of
Mask R-CNN (He et al., 2017): each bin is sampled at regularly spaced points, a point's value is
interpolated from its four neighbouring pixels, and the bin is its points' mean or maximum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

# Bins with more points along an axis are larger than any feature map: their value is zero.
MAX_SAMPLES = 2**16 - 1


def assign_levels(
    boxes: Tensor, levels: int, canonical_box_size: float, canonical_level: int, min_level: int
) -> Tensor:
    """Choose the pyramid level of each box by equation (1) of the FPN paper.

    Args:
        boxes: (K, 5) batch index, x0, y0, x1, y1 in input pixels.
        levels: Number of levels of the pyramid.
        canonical_box_size: Side in input pixels of a box that belongs to ``canonical_level``.
        canonical_level: That level; a box of twice the side belongs to the next.
        min_level: The level of the first feature map.

    Returns:
        (K,) int64 offsets from ``min_level``; -1 where the area is negative or NaN and there are
        several levels.
    """
    if levels == 1:
        return torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
    sizes = ((boxes[:, 3] - boxes[:, 1]) * (boxes[:, 4] - boxes[:, 2])).sqrt()
    level = torch.floor(canonical_level + torch.log2(sizes / canonical_box_size + 1e-8))
    level = level.clamp(min_level, min_level + levels - 1) - min_level
    return torch.where(level.isnan(), -torch.ones_like(level), level).to(torch.int64)


def roi_align_reference(
    features: Sequence[Tensor],
    boxes: Tensor,
    output_size: tuple[int, int],
    spatial_scales: Sequence[float],
    sampling_ratio: int,
    aligned: bool,
    reduce: str,
    canonical_box_size: float,
    canonical_level: int,
    min_level: int,
) -> Tensor:
    """Pool every box; see :func:`seg_plugins.ops.roi_align` for the arguments.

    Returns:
        (K, C, h, w) in the features' dtype. Differentiable in the features by autograd.

    Raises:
        IndexError: A box's batch index is outside the batch.
    """
    dtype = features[0].dtype
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    boxes = boxes.to(compute)
    levels = assign_levels(boxes, len(features), canonical_box_size, canonical_level, min_level)
    height, width = output_size
    batch, channels = features[0].shape[:2]
    pooled = []
    for box, level in zip(boxes, levels.tolist(), strict=True):
        image = box[0].item()
        if not -1 < image < batch:
            raise IndexError(f"roi_align: a box is of image {image}, the batch has {batch} images")
        output = torch.zeros(channels, height, width, dtype=compute, device=boxes.device)
        if level >= 0:
            feature = features[level][int(image)].to(compute)
            scaled = box[1:] * spatial_scales[level] - (0.5 if aligned else 0.0)
            rows = _sampling_points(scaled[1], scaled[3], height, sampling_ratio, aligned)
            cols = _sampling_points(scaled[0], scaled[2], width, sampling_ratio, aligned)
            if rows.numel() and cols.numel():
                bins = [_pool_bin(feature, y, x, reduce) for y in rows for x in cols]
                output = torch.stack(bins, dim=1).reshape(channels, height, width)
        pooled.append(output)
    # The sum of nothing: keeps the graph, so that a map without RoIs has zero gradients.
    nothing = sum(feature[:0].sum() for feature in features)
    if not pooled:
        return features[0].new_zeros(0, channels, height, width) + nothing
    return torch.stack(pooled).to(dtype) + nothing


def _sampling_points(
    start: Tensor, end: Tensor, bins: int, sampling_ratio: int, aligned: bool
) -> Tensor:
    """Coordinates (bins, points) along one axis, in pixels of the map; empty for no points."""
    extent = end - start
    if not aligned:
        extent = extent.clamp(min=1.0)
    if not (math.isfinite(start.item()) and math.isfinite(extent.item())):
        return start.new_zeros(0)
    bin_size = extent / bins
    samples = sampling_ratio if sampling_ratio > 0 else math.ceil(bin_size.item())
    if samples <= 0 or samples > MAX_SAMPLES:
        return start.new_zeros(0)
    bin_index = torch.arange(bins, dtype=start.dtype, device=start.device)[:, None]
    point = torch.arange(samples, dtype=start.dtype, device=start.device)[None] + 0.5
    return start + bin_index * bin_size + point * bin_size / samples


def _pool_bin(feature: Tensor, y: Tensor, x: Tensor, reduce: str) -> Tensor:
    """The mean or maximum (C,) over the points y times x of a (C, H, W) map."""
    height, width = feature.shape[1:]
    count = len(y) * len(x)
    # A point more than a pixel off the map is zero: left out of the sum, not out of the count.
    y = y[(y >= -1) & (y <= height)]
    x = x[(x >= -1) & (x <= width)]
    y, x = y.clamp(0, height - 1), x.clamp(0, width - 1)
    top, left = y.floor().long(), x.floor().long()
    bottom, right = (top + 1).clamp(max=height - 1), (left + 1).clamp(max=width - 1)
    down, along = (y - top)[:, None], (x - left)[None, :]
    values = (
        feature[:, top][:, :, left] * (1 - down) * (1 - along)
        + feature[:, top][:, :, right] * (1 - down) * along
        + feature[:, bottom][:, :, left] * down * (1 - along)
        + feature[:, bottom][:, :, right] * down * along
    ).flatten(1)
    if reduce == "avg":
        return values.sum(1) / count
    if values.shape[1] < count:
        # The points off the map are zero and first, so that a tie gives them the gradient.
        values = torch.cat([values.new_zeros(len(values), 1), values], dim=1)
    # argmax, not amax: amax would share the gradient between equal points.
    return values.gather(1, _first_maximum(values)).squeeze(1)


def _first_maximum(values: Tensor) -> Tensor:
    """Index (C, 1) of the first largest value of each row of (C, P); the first NaN, if any."""
    largest = values.max(dim=1, keepdim=True).values
    is_largest = (values == largest) | values.isnan()
    return is_largest.int().argmax(dim=1, keepdim=True)
