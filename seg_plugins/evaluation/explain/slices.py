"""Scores of parts of a dataset: objects of a size or at the edge, images by a column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..average_precision import AREA_RANGES
from ..coco_truth import CocoTruth, area_of, box_of
from ..confusion import divide
from ..errors import EvaluationError
from .detections import DetectionTable, average_precisions

_SIZES = ("small", "medium", "large")
#: Pixels from the image's edge within which a box is taken to be cut by it.
_EDGE = 1.0
#: Values of a key that images are parted by, at most.
_MOST = 50


def object_slices(
    table: DetectionTable, truth: CocoTruth, confidence: float
) -> list[dict[str, Any]]:
    """How many objects were found, of COCO's three sizes, and cut by the image's edge or not.

    Args:
        table: of all detections.
        truth: of the dataset.
        confidence: the score from which a detection is sure.

    Returns:
        For each part ``slice``, its number of ``objects`` and, in percent, ``recall`` at IoU 0.5,
        by detections of any score, and ``sure_recall`` by sure ones.
    """
    annotations = [annotation for _, annotation in truth.annotations]
    areas = np.array([area_of(annotation) for annotation in annotations], np.float64)
    boxes = np.array([box_of(annotation) for annotation in annotations]).reshape(-1, 4)
    sizes = np.array([truth.size(p) for p, _ in truth.annotations]).reshape(-1, 2)
    end = boxes[:, :2] + boxes[:, 2:]
    cut = (boxes[:, :2] <= _EDGE).any(axis=1) | (end >= sizes[:, ::-1] - _EDGE).any(axis=1)
    # A size on the border of two ranges is in the smaller one, so that each counts once.
    size = np.digitize(areas, AREA_RANGES[1:, 1], right=True)
    parts = {name: size == i for i, name in enumerate(_SIZES)}
    parts |= {"cut by the image's edge": cut, "whole": ~cut}
    sure = np.zeros(len(areas), bool)
    sure[table.matched[table.hit & (table.score >= confidence)]] = True
    return [
        {
            "slice": name,
            "objects": int(np.count_nonzero(chosen := own & ~table.crowd)),
            "recall": _percent(table.found[chosen]),
            "sure_recall": _percent(sure[chosen]),
        }
        for name, own in parts.items()
    ]


def instance_image_slices(
    table: DetectionTable, images: Mapping[str, np.ndarray]
) -> list[dict[str, Any]]:
    """AP50, in percent, of the images of each part; None of one without objects.

    Args:
        table: of all detections.
        images: name -> positions of its images.
    """
    rows = []
    order = table.order[table.counts[table.order]]
    for name, positions in images.items():
        kept = order[np.isin(table.image[order], positions)]
        objects = ~table.crowd & np.isin(table.truth_image, positions)
        wanted = np.bincount(table.truth_category[objects], minlength=table.classes)
        values = average_precisions(table.category[kept], table.hit[kept], wanted)
        known = values[~np.isnan(values)]
        score = 100 * float(known.mean()) if len(known) else None
        rows.append({"slice": name, "images": len(positions), "AP50": score})
    return rows


def images_by(column: str, records: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """``column: value`` -> positions of the records that have the value, in ascending order.

    Args:
        column: a key of the records; "" gives nothing.
        records: of the dataset.

    Raises:
        EvaluationError: a record lacks the key (those that all have are named), or it has too many
            values.
    """
    if not column:
        return {}
    lacking = [record for record in records if column not in record]
    if lacking:
        known = set.intersection(*(set(record) for record in records))
        shown = sorted(k for k in known if isinstance(records[0][k], str | int | float))
        raise EvaluationError(
            f"{len(lacking)} of {len(records)} images have no '{column}' to be sliced by, the "
            f"first is {lacking[0].get('file_name')}; all have {', '.join(shown)}."
        )
    values = [str(record[column]) for record in records]
    if len(set(values)) > _MOST:
        raise EvaluationError(
            f"'{column}' has {len(set(values))} values in {len(records)} images; parts are made of "
            f"keys with at most {_MOST}"
        )
    return {
        f"{column}: {value}": np.flatnonzero([v == value for v in values])
        for value in sorted(set(values))
    }


def _percent(found: np.ndarray) -> float:
    return 100 * float(divide(np.count_nonzero(found), len(found)))
