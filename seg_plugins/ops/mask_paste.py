"""Predicted masks from their boxes straight to COCO's run-length strings."""

from __future__ import annotations

import torch
from detectron2.layers import paste_masks_in_image
from torch import Tensor

from .run_length import RunLengthMasks
from .segmentation_metrics import compiled


def paste_masks(
    masks: Tensor, boxes: Tensor, height: int, width: int, threshold: float = 0.5
) -> RunLengthMasks:
    """Place each small mask into its box and encode the result, in memory of the box's outline.

    Sets the pixels that Detectron2's ``paste_masks_in_image`` sets (bilinear interpolation, at
    least `threshold`), so that the strings equal those of its bitmasks byte for byte.
    Runs on the CPU; small masks and boxes of another device come in one copy each.

    Args:
        masks: (N, M, M) probabilities, on any device; computed in float32.
        boxes: (N, 4) x0, y0, x1, y1 in pixels of the image.
        height: Rows of the image.
        width: Columns of the image.
        threshold: A pixel of at least this probability is inside.

    Returns:
        N masks of the image's size.

    Raises:
        ValueError: Shapes are wrong, the image is empty, or a box is not finite.
    """
    masks, boxes = masks.detach().float().cpu(), boxes.detach().float().cpu()
    if masks.ndim != 3 or masks.shape[1] != masks.shape[2] or boxes.shape != (len(masks), 4):
        raise ValueError(
            f"masks must be (N, M, M) and boxes (N, 4); got {tuple(masks.shape)} and "
            f"{tuple(boxes.shape)}"
        )
    if height < 1 or width < 1:
        raise ValueError(f"the image must not be empty, got {height}x{width} (height x width)")
    if not bool(boxes.isfinite().all()):
        raise ValueError("boxes must be finite; drop those that are not")
    if compiled():
        offsets, data = torch.ops.seg_plugins.paste_masks(masks, boxes, height, width, threshold)
        return RunLengthMasks(height, width, offsets.numpy(), data.numpy())
    # Boxes that reach no pixel are not for Detectron2: it fails on them.
    limit = boxes.new_tensor([width, height])
    low, high = boxes[:, :2], boxes[:, 2:]
    seen = ((low <= high) & (low < limit + 1) & (high > -1)).all(dim=1).tolist()
    empty = RunLengthMasks.from_bitmasks(torch.zeros(1, height, width, dtype=torch.bool)).string(0)
    # One at a time: all bitmasks of a large image do not fit the memory.
    strings = [
        RunLengthMasks.from_bitmasks(
            paste_masks_in_image(mask[None], box[None], (height, width), threshold)
        ).string(0)
        if inside
        else empty
        for mask, box, inside in zip(masks, boxes, seen, strict=True)
    ]
    return RunLengthMasks.from_strings(strings, height, width)
