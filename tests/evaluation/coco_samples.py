"""Random COCO ground truth and predictions, with everything that is awkward about them."""

from __future__ import annotations

import contextlib
import copy
import io
import json
from typing import Any

import cv2
import numpy as np
import pycocotools.mask as coco_mask
import torch
from detectron2.structures import Boxes, Instances
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def random_blob(rng, height, width):
    """A filled ellipse or rectangle; sometimes empty, sometimes all of the image."""
    mask = np.zeros((height, width), np.uint8)
    kind = rng.integers(12)
    if kind == 0:
        return mask
    if kind == 1:
        return mask + 1
    centre = int(rng.integers(width)), int(rng.integers(height))
    axes = int(rng.integers(1, max(2, width // 2))), int(rng.integers(1, max(2, height // 2)))
    cv2.ellipse(mask, centre, axes, float(rng.integers(180)), 0, 360, 1, -1)
    return mask


def jitter(rng, mask):
    shift = np.float32([[1, 0, rng.integers(-3, 4)], [0, 1, rng.integers(-3, 4)]])
    return cv2.warpAffine(mask, shift, mask.shape[::-1], flags=cv2.INTER_NEAREST)


def box_of(mask):
    ys, xs = np.nonzero(mask)
    if not len(xs):
        return [0.0, 0.0, 0.0, 0.0]
    return [float(v) for v in (xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1)]


def make_coco(seed: int, images: int = 12, categories=(3, 7, 90), size: int = 150):
    """A COCO dict and, per image, (masks, boxes xyxy, scores, classes) of a fair model."""
    rng = np.random.default_rng(seed)
    content: dict[str, Any] = {
        "info": {},
        "images": [],
        "categories": [{"id": c, "name": f"class{c}"} for c in categories],
        "annotations": [],
    }
    predictions = {}
    for i in range(images):
        image_id = int(1000 - 7 * i)  # not in ascending order
        height, width = (int(v) for v in rng.integers(1, size, 2))
        content["images"].append(
            {"id": image_id, "height": height, "width": width, "file_name": f"{image_id}.jpg"}
        )
        masks, classes, scores = [], [], []
        for _ in range(0 if i % 5 == 0 else int(rng.integers(1, 9))):
            mask, k = random_blob(rng, height, width), int(rng.integers(len(categories)))
            content["annotations"].append(_annotation(rng, content, image_id, mask, categories[k]))
            for _ in range(int(rng.integers(3))):
                masks.append(jitter(rng, mask))
                classes.append(k if rng.random() < 0.9 else int(rng.integers(len(categories))))
                scores.append(float(np.float32(rng.integers(1, 8) / 8)))  # many ties
        if i % 4 == 3:
            masks, classes, scores = [], [], []  # nothing predicted
        boxes = np.array([box_of(m) for m in masks], np.float32).reshape(-1, 4)
        boxes += rng.normal(0, 0.3, boxes.shape).astype(np.float32)
        boxes[:, 2:] = np.maximum(boxes[:, 2:], 0) + boxes[:, :2]
        masks = np.array(masks, np.uint8).reshape(-1, height, width)
        predictions[image_id] = masks, boxes, np.array(scores), np.array(classes, int)
    return content, predictions


def _annotation(rng, content, image_id, mask, category):
    height, width = mask.shape
    crowd = int(rng.random() < 0.15)
    polygons, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    polygons = [p.reshape(-1).astype(float).tolist() for p in polygons if len(p) >= 3]
    if crowd or not polygons or rng.random() < 0.3:
        rle = coco_mask.encode(np.asfortranarray(mask))
        counts: Any = rle["counts"].decode()
        if rng.random() < 0.5:
            flat = np.concatenate([[0], mask.T.reshape(-1), [2]])
            counts = np.diff(np.flatnonzero(np.diff(flat) != 0), prepend=0).tolist()
            if mask.T.reshape(-1)[0]:
                counts = counts if counts[0] == 0 else [0, *counts]
            if sum(counts) != height * width:
                counts = rle["counts"].decode()
        segmentation: Any = {"size": [height, width], "counts": counts}
    else:
        segmentation = polygons
    return {
        "id": len(content["annotations"]) + 1,
        "image_id": image_id,
        "category_id": category,
        "bbox": box_of(mask),
        "area": float(mask.sum()),
        "iscrowd": crowd,
        "segmentation": segmentation,
    }


def as_instances(prediction, size, masks="bitmasks"):
    """Detectron2's Instances; `masks`: "bitmasks", "coco" or None."""
    bitmasks, boxes, scores, classes = prediction
    instances = Instances(size)
    instances.pred_boxes = Boxes(torch.from_numpy(boxes))
    instances.scores = torch.tensor(scores, dtype=torch.float32)
    instances.pred_classes = torch.from_numpy(classes)
    if masks == "bitmasks":
        instances.pred_masks = torch.from_numpy(bitmasks).bool()
    elif masks == "coco":
        instances.pred_masks = [coco_mask.encode(np.asfortranarray(m)) for m in bitmasks]
    return instances


def as_coco_results(content, predictions):
    """The results list pycocotools loads, with float32 boxes as Detectron2 writes them."""
    categories = [category["id"] for category in content["categories"]]
    results = []
    for image_id, (masks, boxes, scores, classes) in predictions.items():
        widths = boxes.copy()
        widths[:, 2:] -= widths[:, :2]
        for mask, box, score, k in zip(masks, widths.tolist(), scores, classes, strict=True):
            rle = coco_mask.encode(np.asfortranarray(mask))
            results.append(
                {
                    "image_id": image_id,
                    "category_id": categories[k],
                    "bbox": box,
                    "score": float(score),
                    "segmentation": {**rle, "counts": rle["counts"].decode()},
                }
            )
    return results


def write_coco(content, path):
    path.write_text(json.dumps(content))
    return str(path)


def run(evaluator, content, predictions, masks="bitmasks", scores=torch.float32):
    """The results of an evaluator that sees every image once."""
    evaluator.reset()
    for image in content["images"]:
        size = image["height"], image["width"]
        instances = as_instances(predictions[image["id"]], size, masks)
        instances.scores = instances.scores.to(scores)
        evaluator.process([{"image_id": image["id"]}], [{"instances": instances}])
    return evaluator.evaluate()


def pycocotools_evaluation(
    content, results, task, limits=(1, 10, 100), engine=COCOeval, use_categories=True
):
    """pycocotools' finished COCOeval, with sizes of masks as Detectron2 takes them."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(content)
        truth.createIndex()
        results = copy.deepcopy(results)
        if task == "segm":
            for result in results:
                del result["bbox"]
        found = COCO()
        if results:
            found = truth.loadRes(results)
        else:  # loadRes takes no empty list
            found.dataset = {**truth.dataset, "annotations": []}
            found.createIndex()
        evaluation = engine(truth, found, task)
        evaluation.params.maxDets = list(limits)
        evaluation.params.useCats = int(use_categories)
        evaluation.evaluate()
        evaluation.accumulate()
        if limits[2:] == (100,):
            evaluation.summarize()
    return evaluation
