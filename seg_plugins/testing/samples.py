"""Small samples as mappers give them."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks


def semantic_sample(
    height: int, width: int, num_classes: int, *, channels: int = 3, ignore_value: int = 255
) -> dict[str, Any]:
    """An image of noise with random labels, of which the upper quarter is ignored.

    Args:
        height: rows.
        width: columns.
        num_classes: K; with one class labels are 0 and 1.
        channels: of the image.
        ignore_value: the label of ignored pixels.
    """
    labels = torch.randint(0, max(num_classes, 2), (height, width))
    labels[: height // 4] = ignore_value
    image = torch.randint(0, 256, (channels, height, width), dtype=torch.uint8)
    return {"image": image, "sem_seg": labels, "height": height, "width": width}


def instance_sample(
    height: int,
    width: int,
    num_classes: int,
    *,
    count: int = 3,
    channels: int = 3,
    polygons: bool = False,
) -> dict[str, Any]:
    """An image of noise with rectangles as objects.

    Args:
        height: rows.
        width: columns.
        num_classes: classes of objects; object i is of class i modulo K.
        count: objects.
        channels: of the image.
        polygons: masks as polygons rather than as bitmasks.
    """
    masks = torch.zeros(count, height, width, dtype=torch.bool)
    for i, mask in enumerate(masks):
        top, left = i * height // (2 * count), i * width // (2 * count)
        mask[top : top + height // 3 + 1, left : left + width // 3 + 1] = True
    instances = Instances((height, width))
    boxes = BitMasks(masks).get_bounding_boxes() if count else Boxes(torch.zeros(0, 4))
    instances.gt_boxes = boxes
    instances.gt_classes = torch.arange(count) % num_classes
    outlines = [[[x0, y0, x1, y0, x1, y1, x0, y1]] for x0, y0, x1, y1 in boxes.tensor.tolist()]
    instances.gt_masks = PolygonMasks(outlines) if polygons else BitMasks(masks)
    image = torch.randint(0, 256, (channels, height, width), dtype=torch.uint8)
    return {"image": image, "instances": instances, "height": height, "width": width}
