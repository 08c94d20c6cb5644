"""The peers that score COCO's average precision, each from a truth file and result dicts.

A peer gives the seconds for loading the results, the seconds for scoring them and its figures.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Score = Callable[[str], tuple[float, float, np.ndarray]]

# Module of COCO and COCOeval, and the name of the latter.
_COCO_LIKE = {
    "hotcoco": ("hotcoco", "COCOeval"),
    "ultrafast-pycocotools": ("ultrafast_pycocotools", "COCOeval"),
    "faster-coco-eval": ("faster_coco_eval", "COCOeval_faster"),
    "pycocotools": ("pycocotools", "COCOeval"),
}


def coco_peers(file: Path, results: list[dict[str, Any]]) -> dict[str, Score]:
    """Name -> scorer of a task, ``bbox`` or ``segm``; those that cannot be imported are named.

    Args:
        file: COCO's JSON of the truth.
        results: COCO's result dicts with box, score and run lengths in bytes.
    """
    peers: dict[str, Score] = {}
    for name, (module, evaluation) in _COCO_LIKE.items():
        try:
            if name == "pycocotools":
                load = importlib.import_module("pycocotools.coco").COCO
                score = importlib.import_module("pycocotools.cocoeval").COCOeval
            else:
                load = importlib.import_module(module).COCO
                score = getattr(importlib.import_module(module), evaluation)
        except ImportError as error:
            print(f"{name} cannot be imported: {error}")
            continue
        peers[name] = _coco_like(load, score, file, results)
    try:
        peers["vernier"] = _vernier(importlib.import_module("vernier.instance"), file, results)
    except ImportError as error:
        print(f"vernier cannot be imported: {error}")
    return peers


def _coco_like(load: Any, evaluation: Any, file: Path, results: list[dict[str, Any]]) -> Score:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = load(str(file))
    # As Detectron2: boxes or masks alone, so that sizes are those of what is scored.
    other = {"bbox": "segmentation", "segm": "bbox"}
    given = {
        task: [{k: v for k, v in result.items() if k != left_out} for result in results]
        for task, left_out in other.items()
    }

    def score(task: str) -> tuple[float, float, np.ndarray]:
        copied = copy.deepcopy(given[task])
        with contextlib.redirect_stdout(io.StringIO()):
            start = time.perf_counter()
            found = truth.loadRes(copied)
            loaded = time.perf_counter()
            run = evaluation(truth, found, task)
            run.evaluate()
            run.accumulate()
            run.summarize()
            end = time.perf_counter()
        return loaded - start, end - loaded, np.asarray(run.stats)[:12]

    return score


def _vernier(instance: Any, file: Path, results: list[dict[str, Any]]) -> Score:
    """vernier reads JSON within the call; a mask has its box beside it, whose size then counts."""
    truth = instance.CocoDataset.from_json(file.read_bytes())
    text = vernier_json(results)

    def score(task: str) -> tuple[float, float, np.ndarray]:
        kind = instance.Bbox() if task == "bbox" else instance.Segm()
        evaluator = instance.Evaluator(iou=kind, parity_mode="strict")
        start = time.perf_counter()
        stats = evaluator.evaluate(truth, text).stats
        return 0.0, time.perf_counter() - start, np.asarray(stats[: 12 if task == "bbox" else 3])

    return score


def vernier_json(results: list[dict[str, Any]]) -> bytes:
    """The results as vernier reads them: run lengths are text in JSON."""
    readable = [
        {**r, "segmentation": {**r["segmentation"], "counts": r["segmentation"]["counts"].decode()}}
        for r in results
    ]
    return json.dumps(readable).encode()
