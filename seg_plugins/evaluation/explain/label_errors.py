"""Annotations that are likely wrong: where sure detections contradict them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..coco_truth import CocoTruth, box_of
from .detections import DetectionTable
from .tide import KINDS, mistake_kinds

#: What a mistake says about the annotations, if the detection is right.
SUSPICIONS = {
    "background": "missing annotation",
    "classification": "wrong class",
    "localisation": "inaccurate outline",
}


def label_errors(
    table: DetectionTable, truth: CocoTruth, boxes: np.ndarray, *, confidence: float, most: int
) -> list[dict[str, Any]]:
    """Mistakes of high scores against annotations that no other detection supports.

    Args:
        table: of all detections.
        truth: of the dataset.
        boxes: (N, 4) of the detections: x, y, width, height in pixels.
        confidence: the score from which a mistake is worth a look.
        most: entries at most, those with the highest scores.

    Returns:
        Dicts with ``suspicion``, ``file_name``, ``image_id``, ``score``, ``iou`` with the
        annotation, ``predicted`` class and ``box`` and, unless the annotation is missing, the
        ``annotated`` class, ``annotated_box`` and, where the file has ids, ``annotation_id``.
    """
    kinds = mistake_kinds(table)
    names = truth.class_names
    supported = table.found
    entries: list[dict[str, Any]] = []
    for i in table.order:
        kind = KINDS[kinds[i]] if kinds[i] >= 0 else ""
        if len(entries) == most or table.score[i] < confidence:
            break
        if kind not in SUSPICIONS:
            continue
        object_ = {"background": -1, "classification": table.other[i]}.get(kind, table.own[i])
        if object_ >= 0 and supported[object_]:
            continue
        position = int(table.image[i])
        entry = {
            "suspicion": SUSPICIONS[kind],
            "file_name": str(truth.record(position).get("file_name", "")),
            "image_id": truth.image_ids[position],
            "score": float(table.score[i]),
            "iou": float(max(table.own_iou[i], table.other_iou[i])),
            "predicted": names[table.category[i]],
            "box": [round(float(v), 2) for v in boxes[i]],
        }
        if object_ >= 0:
            _, annotation = truth.annotations[object_]
            entry |= {
                "iou": float((table.other_iou if kind == "classification" else table.own_iou)[i]),
                "annotated": names[table.truth_category[object_]],
                "annotated_box": [round(float(v), 2) for v in box_of(annotation)],
            }
            if "id" in annotation:
                entry["annotation_id"] = annotation["id"]
        entries.append(entry)
    return entries
