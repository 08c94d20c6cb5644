"""Panoptic annotations as scores need them: in the ids of their file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .datasets.coco_panoptic import read_panoptic

__all__ = ["PanopticTruth", "panoptic_of_file"]


@dataclass(frozen=True)
class PanopticTruth:
    """Panoptic annotations in the ids of their file.

    Attributes:
        categories: dicts with ``id``, ``name`` and ``isthing``, one per class.
        records: dicts with ``image_id``, ``pan_seg_file_name`` and ``segments_info``, whose
            ``category_id`` are those of `categories`.
    """

    categories: list[dict[str, Any]]
    records: list[dict[str, Any]]


def panoptic_of_file(file: Path, images: Path, segments: Path) -> PanopticTruth:
    """The panoptic annotations of a file, in its own ids.

    Args:
        file: COCO's panoptic JSON.
        images: folder of the images.
        segments: folder of the PNGs.

    Raises:
        DatasetError: the file is not readable or contradicts itself.
    """
    records = read_panoptic(file, images, segments, None)
    ids = {place: category for category, place in records.category_ids.items()}
    categories = [
        {"id": ids[place], "name": c.name, "isthing": int(c.is_thing)}
        for place, c in enumerate(records.table.classes)
    ]
    for record in records:
        for segment in record["segments_info"]:
            segment["category_id"] = ids[segment["category_id"]]
    return PanopticTruth(categories, records)
