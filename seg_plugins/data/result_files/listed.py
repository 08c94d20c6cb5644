"""What COCO's result files have in common: lists of records, with or without what they refer to."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..datasets.coco_fields import dicts
from ..datasets.files import parse_json
from ..errors import DatasetError

__all__ = ["ResultFile", "read_result_file"]

#: What a file holds, by what its records have.
DETECTIONS, SEMANTIC, PANOPTIC = "detections", "semantic masks", "panoptic segments"


@dataclass(frozen=True)
class ResultFile:
    """A JSON list of results, or COCO's object with the results as its ``annotations``.

    Attributes:
        path: of the file, for messages.
        kind: :data:`DETECTIONS`, :data:`SEMANTIC` or :data:`PANOPTIC`; "" of an empty list, which
            may be any of them.
        records: its results, in the file's order.
        images: id in the file -> file name, where the file lists images.
        categories: id in the file -> name, where the file lists categories.
    """

    path: Path
    kind: str
    records: Sequence[Mapping[str, Any]]
    images: Mapping[Hashable, str]
    categories: Mapping[int, str]

    def fail(self, place: int, problem: str) -> DatasetError:
        """The error for the result at a place, to be raised."""
        return DatasetError(f"{self.path}: result {place} (counted from 0): {problem}")

    def category_ids(self, known: Mapping[int, str], used: Iterable[int]) -> dict[int, int]:
        """Category id in the file -> id in the dataset.

        By name, where the file names its categories as the dataset does, for files number classes
        as they like: results of others are then unknown. Else the ids are those of the dataset.

        Args:
            known: id in the dataset -> name.
            used: the ids of the results.
        """
        ids = {name: category for category, name in known.items()}
        if len(ids) == len(known):  # names that are there twice tell nothing
            named = {c: ids[name] for c, name in self.categories.items() if name in ids}
            if any(category != own for category, own in named.items()):
                return named
        return {category: category for category in used if category in known}


def read_result_file(path: Path) -> ResultFile:
    """Read a JSON file of results of any kind.

    Raises:
        DatasetError: it is not readable, or holds something else.
    """
    try:
        content = parse_json(path)
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such file") from None
    images: dict[Hashable, str] = {}
    categories: dict[int, str] = {}
    records = content
    if isinstance(content, dict):
        records = content.get("annotations")
        for entry in dicts(content.get("images")):
            if isinstance(entry.get("file_name"), str) and isinstance(entry.get("id"), Hashable):
                images[entry["id"]] = entry["file_name"]
        for entry in dicts(content.get("categories")):
            if isinstance(entry.get("name"), str) and isinstance(entry.get("id"), int):
                categories[entry["id"]] = entry["name"]
    if not isinstance(records, list):
        what = "an object without a list of annotations" if isinstance(content, dict) else "no list"
        raise DatasetError(
            f"{path}: {what}. Expected are COCO's results, a list of detections, Detectron2's list "
            "of semantic masks, or COCO's panoptic results, an object with annotations"
        )
    for place, record in enumerate(records):
        if not isinstance(record, dict):
            raise DatasetError(
                f"{path}: result {place} (counted from 0) is {str(record)[:40]!r}, not an object"
            )
    return ResultFile(path, _kind(path, records), records, images, categories)


def _kind(path: Path, records: Sequence[Mapping[str, Any]]) -> str:
    if not records:
        return ""
    first = records[0]
    if "segments_info" in first:
        return PANOPTIC
    if "score" in first:
        return DETECTIONS
    if "file_name" in first and "segmentation" in first:
        return SEMANTIC
    raise DatasetError(
        f"{path}: the first result has the keys {', '.join(sorted(map(str, first)))}. A detection "
        "has image_id, category_id, score and bbox or segmentation; a semantic mask file_name, "
        "category_id and segmentation; an image of panoptic segments image_id, file_name and "
        "segments_info"
    )
