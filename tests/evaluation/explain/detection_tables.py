"""Tables of detections worked out from boxes by COCO's own matching."""

from __future__ import annotations

import json
from pathlib import Path

from seg_plugins.data import Dataset
from seg_plugins.evaluation.coco_engine import CocoEngine
from seg_plugins.evaluation.coco_truth import CocoTruth
from seg_plugins.evaluation.explain.detections import DetectionTable, match_detections
from seg_plugins.evaluation.found_instances import FoundInstances

import numpy as np
from detectron2.data import MetadataCatalog


def dataset_of(objects, classes, folder: Path, images: int = 1) -> Dataset:
    """A dataset of images 100 x 100.

    Args:
        objects: (image, class, [x, y, width, height]) of each, with "crowd" as a fourth of some.
        classes: names; the file numbers them 1, 2, ...
        folder: for its file.
        images: number of images.
    """
    content = {
        "images": [
            {"id": i, "height": 100, "width": 100, "file_name": f"{i}.png"} for i in range(images)
        ],
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate(classes)],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": k + 1,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": len(crowd),
            }
            for number, (image, k, box, *crowd) in enumerate(objects, start=1)
        ],
    }
    file = folder / "truth.json"
    file.write_text(json.dumps(content))
    name = f"explained_{folder.name}"
    MetadataCatalog.pop(name, None)
    MetadataCatalog.get(name).set(
        evaluator_type="coco",
        json_file=str(file),
        thing_dataset_id_to_contiguous_id={k + 1: k for k in range(len(classes))},
        thing_classes=list(classes),
    )
    return Dataset.get(name)


def table_of(
    dataset: Dataset, detections, task: str = "bbox"
) -> tuple[DetectionTable, CocoTruth, CocoEngine]:
    """The table of (image, class, score, [x, y, width, height]) of each detection."""
    truth = CocoTruth(dataset)
    found = FoundInstances()
    for position in range(len(truth.image_ids)):
        own = [d for d in detections if d[0] == position]
        found.add(
            position,
            np.array([d[3] for d in own], float).reshape(-1, 4),
            np.array([d[2] for d in own], float),
            np.array([d[1] for d in own], int),
            None,
        )
    engine = CocoEngine(truth, found, [1, 10, 100])
    return match_detections(truth, found, engine, task), truth, engine
