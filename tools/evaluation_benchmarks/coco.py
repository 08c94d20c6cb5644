"""COCO's average precision against hotcoco alone and the other libraries that score it."""

from __future__ import annotations

import copy
import json
import time
from pathlib import Path
from typing import Any

from seg_plugins.evaluation import InstanceEvaluator
from seg_plugins.ops.run_length import RunLengthMasks

import numpy as np
import pycocotools.mask as coco_mask
import torch
from detectron2.structures import Boxes, Instances

from .coco_peers import coco_peers
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


def coco_hotcoco(folder: Path, repeats: int) -> None:
    """With hotcoco alone: other libraries in the process slow both down."""
    coco(folder, repeats, only="hotcoco")


def coco(folder: Path, repeats: int, only: str = "") -> None:
    content, results, outputs = coco_scene(500, 100)
    file = folder / "instances.json"
    file.write_text(json.dumps(content))
    ids = {c["id"]: i for i, c in enumerate(content["categories"])}
    register("coco", [], json_file=str(file), thing_dataset_id_to_contiguous_id=ids)
    inputs = [{"image_id": image["id"]} for image in content["images"]]
    given = {
        "bbox": [_without_masks(output) for output in outputs],
        "segm": outputs,
        # Masks as the systems here give them.
        "packed": [_packed(output) for output in outputs],
    }
    evaluator = InstanceEvaluator("coco")

    def ours(form: str) -> dict[str, dict[str, float]]:
        evaluator.reset()
        for image, output in zip(inputs, given[form], strict=True):
            evaluator.process([image], [output])
        return evaluator.evaluate()

    peers = coco_peers(file, results)
    peers = {only: peers[only]} if only else peers
    # (peer, task) -> its runs of loading and scoring; ours loads nothing.
    seconds: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for repeat in range(max(3, repeats // 3) + 1):
        for task in ("bbox", "segm"):
            stats = {}
            for name, score in peers.items():
                loading, scoring, stats[name] = score(task)
                seconds.setdefault((name, task), []).append((loading, scoring))
            for form in ("bbox",) if task == "bbox" else ("packed", "segm"):
                start = time.perf_counter()
                found = ours(form)
                seconds.setdefault(("", form), []).append((0.0, time.perf_counter() - start))
            if not repeat:
                for name, values in stats.items():
                    _same_figures(f"{name} {task}", found[task], values)
    # The first run of each warms up.
    times = {key: 1e3 * np.median(runs[1:], axis=0) for key, runs in seconds.items()}
    for name in peers:
        boxes, masks = times[name, "bbox"], times[name, "segm"]
        for what, peer, here in (
            ("boxes", boxes, times["", "bbox"]),
            ("boxes and masks", boxes + masks, times["", "segm"]),
            ("boxes and packed masks", boxes + masks, times["", "packed"]),
        ):
            mine = "InstanceEvaluator, process and evaluate"
            work = f"COCO {what}, 500 images x 100 detections"
            report(f"{work}, loading aside", name, {name: peer[1], mine: here.sum()})
            report(f"{work}, with loading", name, {name: peer.sum(), mine: here.sum()})


def _without_masks(output: dict[str, Any]) -> dict[str, Any]:
    instances = copy.copy(output["instances"])
    instances._fields = {k: v for k, v in instances._fields.items() if k != "pred_masks"}
    return {"instances": instances}


def _packed(output: dict[str, Any]) -> dict[str, Any]:
    instances = copy.copy(output["instances"])
    masks = RunLengthMasks.from_coco(instances.pred_masks, *instances.image_size)
    instances._fields = {**instances._fields, "pred_masks": masks}
    return {"instances": instances}


def _same_figures(name: str, found: dict[str, float], stats: np.ndarray) -> None:
    names = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR@1", "AR@10", "AR@100"]
    names += ["ARs@100", "ARm@100", "ARl@100"]
    for figure, value in zip(names[: len(stats)], stats, strict=True):
        same(f"{name} {figure}", found[figure], 100 * value if value >= 0 else np.nan)
