"""Truth for the tests of point representations."""

from __future__ import annotations

from seg_plugins.data.datasets.shapes_scene import NUM_THINGS, make_scene
from seg_plugins.modeling.instance_representations import Truth

import numpy as np
import torch
from detectron2.structures import BitMasks, Boxes, Instances


def truth(masks, classes=None, boxes=None):
    """Of (n, height, width) bool masks."""
    masks = torch.as_tensor(np.asarray(masks), dtype=torch.bool)
    instances = Instances(tuple(masks.shape[1:]))
    instances.gt_masks = BitMasks(masks)
    found = instances.gt_masks.get_bounding_boxes() if boxes is None else Boxes(boxes)
    instances.gt_boxes = found
    instances.gt_classes = torch.as_tensor(
        np.arange(len(masks)) % 3 if classes is None else classes, dtype=torch.int64
    )
    return Truth(instances, torch.device("cpu"))


def rectangles(places, size=(64, 96)):
    """(n, height, width) bool from x0, y0, x1, y1, in whole pixels."""
    masks = np.zeros((len(places), *size), bool)
    for mask, (x0, y0, x1, y1) in zip(masks, places, strict=True):
        mask[y0:y1, x0:x1] = True
    return masks


def random_truth(seed, count=7, size=(64, 96)):
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, size[1] - 4, count), rng.integers(0, size[0] - 4, count)
    places = np.stack([x, y, x + rng.integers(1, 70, count), y + rng.integers(1, 50, count)], 1)
    masks = rectangles(places, size) & (rng.random((count, *size)) < 0.8)
    return truth(masks, rng.integers(0, 3, count))


def shapes_truths(count, seed=0):
    """Of fresh scenes of the embedded dataset, without crowds."""
    truths = []
    for index in range(count):
        scene = make_scene(np.random.default_rng([seed, index]))
        things = [s for s in scene.segments if s.class_id < NUM_THINGS and not s.is_crowd]
        truths.append(truth(np.stack([s.mask for s in things]), [s.class_id for s in things]))
    return truths


def iou(one, two):
    return ((one & two).sum() / (one | two).sum()).item()
