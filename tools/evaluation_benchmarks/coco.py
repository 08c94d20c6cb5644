"""COCO's average precision against pycocotools and faster-coco-eval."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import io
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from seg_plugins.evaluation import InstanceEvaluator

import numpy as np
import pycocotools.mask as coco_mask
import torch
from detectron2.structures import Boxes, Instances

from .measuring import register, report, same


def coco_scene(images: int, detections: int) -> tuple[dict[str, Any], list, list]:
    """COCO-sized images with polygons, and detections near them; COCO dict, results, outputs."""
    rng = np.random.default_rng(5)
    height, width, categories = 480, 640, 80
    content: dict[str, Any] = {
        "info": {},
        "images": [
            {"id": i + 1, "file_name": f"{i}.jpg", "height": height, "width": width}
            for i in range(images)
        ],
        "categories": [{"id": c + 1, "name": f"c{c}"} for c in range(categories)],
        "annotations": [],
    }
    results, outputs = [], []
    for image in content["images"]:
        shapes = []
        for _ in range(7):
            centre = rng.uniform([60, 60], [width - 60, height - 60])
            angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
            radius = rng.uniform(12, 120) * rng.uniform(0.7, 1.0, 24)
            points = centre + radius[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
            points = np.clip(points, 0, [width - 1, height - 1])
            category = int(rng.integers(categories)) + 1
            shapes.append((points, category))
            rle = coco_mask.merge(
                coco_mask.frPyObjects([points.reshape(-1).tolist()], height, width)
            )
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": image["id"],
                    "category_id": category,
                    "bbox": coco_mask.toBbox(rle).tolist(),
                    "area": float(coco_mask.area(rle)),
                    "iscrowd": 0,
                    "segmentation": [points.reshape(-1).tolist()],
                }
            )
        instances = Instances((height, width))
        boxes, scores, classes, masks = [], [], [], []
        for d in range(detections):
            points, category = shapes[d % 7]
            points = points + rng.normal(0, 6, 2) + rng.normal(0, 2, points.shape)
            points = np.clip(points, 0, [width - 1, height - 1])
            rle = coco_mask.merge(
                coco_mask.frPyObjects([points.reshape(-1).tolist()], height, width)
            )
            x, y, w, h = coco_mask.toBbox(rle).tolist()
            boxes.append([x, y, x + w, y + h])
            scores.append(float(np.float32(rng.random())))
            classes.append(category - 1 if rng.random() < 0.7 else int(rng.integers(categories)))
            masks.append(rle)
            results.append(
                {
                    "image_id": image["id"],
                    "category_id": classes[-1] + 1,
                    "bbox": [x, y, w, h],
                    "score": scores[-1],
                    "segmentation": rle,
                }
            )
        instances.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
        instances.scores = torch.tensor(scores)
        instances.pred_classes = torch.tensor(classes)
        instances.pred_masks = masks
        outputs.append({"instances": instances})
    return content, results, outputs


def coco(folder: Path, repeats: int) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    content, results, outputs = coco_scene(500, 100)
    file = folder / "instances.json"
    file.write_text(json.dumps(content))
    ids = {c["id"]: i for i, c in enumerate(content["categories"])}
    register("coco", [], json_file=str(file), thing_dataset_id_to_contiguous_id=ids)
    with_masks, boxes_alone = InstanceEvaluator("coco"), InstanceEvaluator("coco")
    inputs = [{"image_id": image["id"]} for image in content["images"]]
    without = []
    for output in outputs:
        instances = copy.copy(output["instances"])
        instances._fields = {k: v for k, v in instances._fields.items() if k != "pred_masks"}
        without.append({"instances": instances})

    def ours(evaluator: InstanceEvaluator, predicted: list) -> dict[str, dict[str, float]]:
        evaluator.reset()
        for given, output in zip(inputs, predicted, strict=True):
            evaluator.process([given], [output])
        return evaluator.evaluate()

    def official(task: str, load: Callable, evaluation_class: type) -> np.ndarray:
        with contextlib.redirect_stdout(io.StringIO()):
            truth = load(str(file))
            found = copy.deepcopy(results)
            for result in found:
                if task == "segm":
                    del result["bbox"]
                else:
                    del result["segmentation"]
            found = truth.loadRes(found)
            start = time.perf_counter()
            evaluation = evaluation_class(truth, found, task)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        seconds.setdefault((task, evaluation_class.__name__), []).append(
            time.perf_counter() - start
        )
        return np.asarray(evaluation.stats)

    seconds: dict[tuple[str, str], list[float]] = {}
    peers: list[tuple[Callable, type]] = [(COCO, COCOeval)]
    if importlib.util.find_spec("faster_coco_eval"):
        from faster_coco_eval import COCO as FasterCOCO
        from faster_coco_eval import COCOeval_faster

        peers.append((FasterCOCO, COCOeval_faster))
    else:
        print("faster-coco-eval cannot be imported.")
    own: dict[str, list[float]] = {"bbox": [], "segm": []}
    for _ in range(max(3, repeats // 3)):
        stats = {(t, e.__name__): official(t, c, e) for t in own for c, e in peers}
        start = time.perf_counter()
        found = ours(with_masks, outputs)
        middle = time.perf_counter()
        ours(boxes_alone, without)
        own["segm"].append(middle - start)
        own["bbox"].append(time.perf_counter() - middle)
    for task in own:
        names = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR@1", "AR@10", "AR@100"]
        names += ["ARs@100", "ARm@100", "ARl@100"]
        for name, value in zip(names, stats[task, "COCOeval"], strict=True):
            same(f"{task} {name}", found[task][name], 100 * value if value >= 0 else np.nan)
        what = "process + evaluate, boxes alone" if task == "bbox" else "boxes and masks together"
        for _, evaluation_class in peers:
            peer = evaluation_class.__name__
            mine, theirs = (1e3 * statistics.median(x) for x in (own[task], seconds[task, peer]))
            report(
                f"COCO {task}, 500 images x 100 detections",
                peer,
                {peer: theirs, f"InstanceEvaluator, {what}": mine},
            )
