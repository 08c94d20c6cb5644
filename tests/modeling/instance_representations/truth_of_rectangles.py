"""Truth made of rectangles, and InstanceFCN's rules for windows, for several tests."""

from __future__ import annotations

from seg_plugins.modeling.instance_representations import (
    Truth,
)

import torch
from detectron2.structures import BitMasks, Boxes, Instances

CPU = torch.device("cpu")
RULES = {
    "positive_offset": 16 / 224,
    "positive_sizes": (0.4805, 0.6796),
    "negative_offset": 32 / 224,
    "negative_sizes": (0.2857, 1.1429),
}


def truth_with(masks, classes=None):
    instances = Instances(tuple(masks.shape[-2:]))
    instances.gt_masks = BitMasks(masks)
    boxes = instances.gt_masks.get_bounding_boxes() if len(masks) else Boxes(torch.zeros(0, 4))
    instances.gt_boxes = boxes
    instances.gt_classes = torch.as_tensor(classes or [0] * len(masks)).long()
    return Truth(instances, CPU)


def rectangles(size, *boxes):
    masks = torch.zeros(len(boxes), *size, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    return masks
