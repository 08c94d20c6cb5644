"""A small sample of panoptic segmentation for the tests of both systems."""

from __future__ import annotations

import torch
from detectron2.structures import BitMasks, Boxes, Instances

IGNORE = 255


def sample(size=(64, 96), count=3):
    """Two kinds of stuff (6, 7) side by side, `count` things 0, 1, ... and some ignored rows."""
    masks = torch.zeros(count, *size, dtype=torch.bool)
    labels = torch.full(size, 6)
    labels[:, size[1] // 2 :] = 7
    labels[:4] = IGNORE
    for i, mask in enumerate(masks):
        mask[6 * i + 4 : 12 * i + 24, 6 * i + 3 : 15 * i + 30] = True
        labels[mask] = i
    instances = Instances(size)
    instances.gt_masks = BitMasks(masks)
    instances.gt_boxes = instances.gt_masks.get_bounding_boxes() if count else Boxes([])
    instances.gt_classes = torch.arange(count)
    image = torch.randint(256, (3, *size), dtype=torch.uint8)
    return {"image": image, "sem_seg": labels, "instances": instances}
