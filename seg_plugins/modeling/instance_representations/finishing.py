"""From the instances that a representation finds to those of an image, in Detectron2's format."""

from __future__ import annotations

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from ...ops.run_length import RunLengthMasks
from .mask_forms import extents

# Bitmasks are encoded together up to so many pixels.
_PIXELS_AT_ONCE = 1 << 24


def finish(
    instances: Instances, height: int, width: int, mask_format: str, *, mirrored: bool = False
) -> Instances:
    """Instances of the network as those of an image, in Detectron2's format.

    Args:
        instances: ``scores``, ``pred_classes`` and ``pred_masks``, a :class:`MaskForm`, of an
            image of ``image_size`` without its padding.
        height: rows of the wanted output.
        width: columns of the wanted output.
        mask_format: ``bitmask`` or ``rle``: see :class:`~..meta_arch.mask_rcnn.MaskRCNNFPN`.
        mirrored: the network saw the image with left and right exchanged.

    Returns:
        Instances of that size: ``pred_boxes``, the pixels' bounds of each mask, ``scores``,
        ``pred_classes`` and ``pred_masks``. One whose mask has no pixel of the image is no
        instance of it. Beside the output there are the bitmasks of a few instances at most.
    """
    form, size = instances.pred_masks, instances.image_size
    boxes = torch.zeros(len(instances), 4)
    kept: list[int] = []
    encoded: list[RunLengthMasks] = []
    painted: list[Tensor] = []
    at_once = max(_PIXELS_AT_ONCE // (height * width), 1)
    for index in range(len(instances)):
        mask = form.paint(index, size, height, width)
        mask = mask.flip(-1) if mirrored else mask
        top, left, bottom, right = extents(mask[None])[0].tolist()
        if bottom <= top:
            continue
        boxes[index] = torch.tensor([left, top, right, bottom])
        kept.append(index)
        painted.append(mask)
        if mask_format == "rle" and len(painted) == at_once:
            encoded.append(RunLengthMasks.from_bitmasks(torch.stack(painted)))
            painted = []
    empty = torch.zeros(0, height, width, dtype=torch.bool, device=instances.scores.device)
    stack = torch.stack(painted) if painted else empty
    found = Instances((height, width))
    found.pred_boxes = Boxes(boxes[kept].to(instances.scores.device))
    found.scores = instances.scores[kept]
    found.pred_classes = instances.pred_classes[kept]
    if mask_format == "rle":
        encoded.append(RunLengthMasks.from_bitmasks(stack))
        strings = [part.string(i) for part in encoded for i in range(len(part))]
        found.pred_masks = RunLengthMasks.from_strings(strings, height, width)
    else:
        found.pred_masks = stack
    return found
