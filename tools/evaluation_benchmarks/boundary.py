"""Boundary AP against vernier's."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

from seg_plugins.data import Dataset
from seg_plugins.evaluation.average_precision import PrecisionRecall
from seg_plugins.evaluation.boundary_precision import BoundaryPrecision
from seg_plugins.evaluation.coco_truth import CocoTruth
from seg_plugins.ops.run_length import RunLengthMasks

import numpy as np
import torch
from timing import medians

from .coco import coco_scene
from .coco_peers import vernier_json
from .measuring import register, report, same

LIMITS = [1, 10, 100]


def boundary(folder: Path, repeats: int) -> None:
    try:
        instance = importlib.import_module("vernier.instance")
    except ImportError as error:
        print(f"vernier cannot be imported: {error}")
        return
    content, results, outputs = coco_scene(500, 100)
    file = folder / "instances.json"
    file.write_text(json.dumps(content))
    ids = {c["id"]: i for i, c in enumerate(content["categories"])}
    register("boundary", [], json_file=str(file), thing_dataset_id_to_contiguous_id=ids)
    truth = CocoTruth(Dataset.get("boundary"))
    found = [output["instances"] for output in outputs]
    masks = [RunLengthMasks.from_coco(one.pred_masks, *one.image_size) for one in found]

    def ours() -> PrecisionRecall:
        precision = BoundaryPrecision(truth, LIMITS, dilation_ratio=0.02)
        for position, (one, of_image) in enumerate(zip(found, masks, strict=True)):
            scores = one.scores.numpy().astype(np.float64)
            precision.add(position, scores, one.pred_classes.numpy(), of_image)
        return precision.curves([precision.state()])

    # vernier parses its JSON within the call; here the masks are read from polygons instead.
    theirs = instance.CocoDataset.from_json(file.read_bytes())
    text = vernier_json(results)
    evaluator = instance.Evaluator(iou=instance.Boundary(), parity_mode="strict")

    def peer() -> Any:
        return evaluator.evaluate(theirs, text, num_threads=torch.get_num_threads()).stats

    times = medians({"vernier": peer, "BoundaryPrecision": ours}, max(3, repeats // 3))
    figures, expected = ours().summary(), peer()
    # The sizes of a mask are those of its box there.
    for name, place in {"AP": 0, "AP50": 1, "AP75": 2, "AR@1": 6, "AR@10": 7, "AR@100": 8}.items():
        same(f"boundary {name}", figures[name], expected[place])
    report("Boundary AP, 500 images x 100 detections", "vernier", times)
