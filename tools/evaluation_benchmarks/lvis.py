"""LVIS's average precision against the package lvis and hotcoco alone."""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from seg_plugins.evaluation import LvisEvaluator

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_lvis_instances

from .coco import coco_scene
from .measuring import report, same

FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf")
Score = Callable[[str], dict[str, float]]


def lvis_scene(images: int, detections: int) -> tuple[dict[str, Any], list, list]:
    """The scene of COCO with what LVIS knows of its images and categories."""
    content, results, outputs = coco_scene(images, detections)
    rng = np.random.default_rng(6)
    numbers = np.array([category["id"] for category in content["categories"]])
    for category in content["categories"]:
        category["frequency"] = "rcf"[category["id"] % 3]
    present: dict[int, set[int]] = {image["id"]: set() for image in content["images"]}
    for annotation in content["annotations"]:
        present[annotation["image_id"]].add(annotation["category_id"])
    for image in content["images"]:
        own = present[image["id"]]
        absent = rng.permutation([n for n in numbers.tolist() if n not in own])[:10]
        image["neg_category_ids"] = sorted(absent.tolist())
        image["not_exhaustive_category_ids"] = sorted(own)[:1]
        image["coco_url"] = f"http://images.cocodataset.org/val2017/{image['id']:012}.jpg"
    return content, results, outputs


def lvis(folder: Path, repeats: int) -> None:
    images, detections = 100, 100
    content, results, outputs = lvis_scene(images, detections)
    file = folder / "lvis.json"
    file.write_text(json.dumps(content))
    for catalogue in (DatasetCatalog, MetadataCatalog):
        if "lvis_scene" in catalogue.list():
            catalogue.remove("lvis_scene")
    register_lvis_instances("lvis_scene", {}, str(file), str(folder))
    evaluator = LvisEvaluator("lvis_scene")
    inputs = [{"image_id": image["id"]} for image in content["images"]]

    def ours() -> dict[str, dict[str, float]]:
        evaluator.reset()
        for image, output in zip(inputs, outputs, strict=True):
            evaluator.process([image], [output])
        return evaluator.evaluate()

    peers = {name: _peer(name, file, results) for name in ("hotcoco", "lvis")}
    seconds: dict[str, list[float]] = {name: [] for name in (*peers, "")}
    for repeat in range(max(3, repeats // 3) + 1):
        scores: dict[str, dict[str, dict[str, float]]] = {}
        for name, score in peers.items():
            if score is None:
                continue
            start = time.perf_counter()
            scores[name] = {task: score(task) for task in ("bbox", "segm")}
            seconds[name].append(time.perf_counter() - start)
        start = time.perf_counter()
        found = ours()
        seconds[""].append(time.perf_counter() - start)
        for name, of_task in scores.items() if not repeat else ():
            for task, values in of_task.items():
                for figure in FIGURES:
                    value = values[figure]
                    expected = 100 * value if value > -1 else np.nan
                    same(f"{name} {task} {figure}", found[task][figure], expected)
    times = {name: 1e3 * float(np.median(runs[1:])) for name, runs in seconds.items() if runs}
    here = {"LvisEvaluator, process and evaluate": times.pop("")}
    work = f"LVIS boxes and masks, {images} images x {detections} detections, with loading"
    for name, value in times.items():
        report(work, name, {name: value, **here})


def _peer(name: str, file: Path, results: list[dict[str, Any]]) -> Score | None:
    """A scorer of a task from result dicts, loading included; None where it is not installed."""
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        print(f"{name} cannot be imported: {error}")
        return None
    logging.getLogger("lvis").setLevel(logging.ERROR)
    truth = module.LVIS(str(file))
    # As Detectron2: boxes or masks alone, so that sizes are those of what is scored.
    other = {"bbox": "segmentation", "segm": "bbox"}
    given = {
        task: [{k: v for k, v in result.items() if k != left_out} for result in results]
        for task, left_out in other.items()
    }

    def score(task: str) -> dict[str, float]:
        detections = module.LVISResults(truth, copy.deepcopy(given[task]), max_dets=300)
        run = module.LVISEval(truth, detections, task)
        numpy_1 = patch.object(np, "float", float, create=True)  # which the package lvis is of
        with numpy_1, contextlib.redirect_stdout(io.StringIO()):
            run.run()
        return dict(run.get_results())

    return score
