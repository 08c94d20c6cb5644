"""The outputs of a fair model: a dataset's truth with mistakes, from a seed."""

from __future__ import annotations

from seg_plugins.data import Dataset
from seg_plugins.io.images import read_label
from seg_plugins.io.masks import to_bitmask
from seg_plugins.io.panoptic import read_segment_ids

import cv2
import numpy as np
import torch
from detectron2.structures import Boxes, BoxMode, Instances


def noisy_instances(dataset: Dataset, seed: int = 0):
    """(input, Instances with masks) of every image; boxes and scores float32, some images empty."""
    rng = np.random.default_rng(seed)
    class_of = [place for place, _, _ in dataset.instance_classes]
    for number, record in enumerate(dataset.instance_records):
        size = record["height"], record["width"]
        boxes, masks, scores, classes = [], [], [], []
        for annotation in record["annotations"]:
            x, y, w, h = BoxMode.convert(
                list(annotation["bbox"]), annotation["bbox_mode"], BoxMode.XYWH_ABS
            )
            if number % 7 == 0 or rng.random() < 0.2:
                continue
            boxes.append(np.array([x, y, x + w, y + h]) + rng.normal(0, 0.7, 4))
            mask = to_bitmask(annotation["segmentation"], *size).astype(np.uint8)
            masks.append(cv2.erode(mask, np.ones((3, 3))) if rng.random() < 0.4 else mask)
            classes.append(class_of[annotation["category_id"]])
            if rng.random() < 0.1:
                classes[-1] = class_of[rng.integers(len(class_of))]
            scores.append(rng.integers(1, 100) / 99 if rng.random() < 0.7 else 0.5)
        found = Instances(size)
        found.pred_boxes = Boxes(torch.tensor(np.array(boxes, np.float32).reshape(-1, 4)))
        found.scores = torch.tensor(np.array(scores, np.float32))
        found.pred_classes = torch.tensor(classes, dtype=torch.int64)
        found.pred_masks = torch.from_numpy(np.array(masks, bool).reshape(-1, *size))
        yield {k: record[k] for k in ("file_name", "image_id")}, found


def noisy_scores(dataset: Dataset, seed: int = 0):
    """(input, (K, H, W) scores) of every image; the truth's ignored pixels have a class too."""
    rng = np.random.default_rng(seed)
    classes = len(dataset.stuff)
    for record in dataset.records:
        read = record.get("sem_seg_encoding", read_label)
        labels = np.asarray(read(record["sem_seg_file_name"])).astype(np.int64)
        wrong = (rng.random(labels.shape) < 0.2) | (labels >= classes)
        labels = np.where(wrong, rng.integers(0, classes, labels.shape), labels)
        scores = torch.zeros(classes, *labels.shape)
        scores.scatter_(0, torch.from_numpy(labels)[None], 1.0)
        given = {k: record[k] for k in ("file_name", "image_id") if k in record}
        yield given, scores


def noisy_segments(dataset: Dataset, seed: int = 0):
    """(input, (id map, segments)) of every image, in the dataset's own category ids."""
    rng = np.random.default_rng(seed)
    truth = dataset.panoptic
    ids_of_classes = [category["id"] for category in truth.categories]
    for record in truth.records:
        ids = read_segment_ids(str(record["pan_seg_file_name"])).astype(np.int32)
        found = np.roll(ids, rng.integers(-2, 3, 2), axis=(0, 1))
        found[rng.random(found.shape) < 0.05] = 0
        segments = []
        for segment in record["segments_info"]:
            if not (found == segment["id"]).any():
                continue
            category = segment["category_id"]
            category = int(rng.choice(ids_of_classes)) if rng.random() < 0.1 else category
            segments.append({"id": segment["id"], "category_id": category})
        given = {k: record[k] for k in ("file_name", "image_id") if k in record}
        yield given, (torch.from_numpy(found), segments)
