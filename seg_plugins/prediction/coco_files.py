"""Files about all images of a folder, joined from the records of each: COCO JSON and a table."""

from __future__ import annotations

import csv
import io
import itertools
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..io.files import write_atomically
from .known_images import KnownImages
from .labels import Labels

logger = logging.getLogger(__name__)

Record = dict[str, Any]

# Images that one more is joined with at once. Each joining reads the records of all: at every one
# of a thousand images it would take longer than the predictions.
_AT_ONCE = 50
_SUMMARIES = ("statistics.csv", "instances.json", "panoptic.json")


def join_saved(folder: Path, records: Path, labels: Labels) -> list[Path]:
    """Bring the summaries up to date after one image, or, of many, remove those out of date.

    Arguments and result as those of :func:`write_summaries`.
    """
    if sum(1 for _ in itertools.islice(_records(records), _AT_ONCE + 1)) <= _AT_ONCE:
        return write_summaries(folder, records, labels)
    outdated = [folder / name for name in _SUMMARIES if (folder / name).exists()]
    for path in outdated:
        path.unlink()
    if outdated:
        logger.warning(
            "%s: more than %d images: %s are written again, of all of them, by "
            "seg_plugins.prediction.join(folder, predictor.labels) after the last",
            folder,
            _AT_ONCE,
            ", ".join(path.name for path in outdated),
        )
    return []


def _records(folder: Path) -> Iterator[Path]:
    """The records below a folder, without listing all before the first."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _records(Path(entry.path))
            elif entry.name.endswith(".json") and not entry.name.startswith("."):
                yield Path(entry.path)


def write_summaries(folder: Path, records: Path, labels: Labels, model: str = "") -> list[Path]:
    """Write ``statistics.csv``, and ``instances.json`` and ``panoptic.json`` where asked for.

    Args:
        folder: where to.
        records: the folder of the records.
        labels: the model's classes.
        model: the beginning of the fingerprints of this model's records; others are left out.

    Returns:
        The files.
    """
    listed = [path for path in sorted(_records(records)) if _is_of(path, model)]
    statistics = folder / "statistics.csv"
    table = _table(listed)
    write_atomically(statistics, lambda file: file.write(table))
    paths = [statistics]
    for kind, rows in (("json", _instance_rows), ("panoptic", _panoptic_rows)):
        images = _images(listed, kind, labels.images)
        if images:
            path = folder / ("instances.json" if kind == "json" else "panoptic.json")
            head = {"images": list(images.values()), "categories": _categories(labels)}
            _write_list(path, head, rows(listed, images))
            paths.append(path)
    return paths


def _is_of(path: Path, model: str) -> bool:
    return _read(path)["fingerprint"].startswith(model)


def _read(path: Path) -> Record:
    return json.loads(path.read_bytes())


def _images(paths: list[Path], kind: str, known: KnownImages) -> dict[str, Record]:
    """COCO's image entries by record.

    Images that a dataset's file lists keep its ids, and others get ids after them. If it lists
    none, the ids are the numbers in the names if all are numbers, else they count from 1.
    """
    records = [record for record in map(_read, paths) if kind in record["saved"]]
    of_file = [known.id_of(record.get("source") or "") for record in records]
    stems = [Path(record["file_name"]).stem for record in records]
    numbers = [int(stem) for stem in stems if stem.isdecimal()]
    used = {number for number in of_file if number is not None}
    if not used and len(numbers) == len(set(numbers)) == len(records):
        ids = numbers
    else:
        free = itertools.count(max(used, default=0) + 1)
        ids = [next(free) if number is None else number for number in of_file]
    keys = ("file_name", "height", "width")
    return {
        record["name"]: {"id": number, **{key: record[key] for key in keys}}
        for record, number in zip(records, ids, strict=True)
    }


def _categories(labels: Labels) -> list[Record]:
    seen: dict[int, Record] = {}
    for label in labels.all:
        seen.setdefault(
            label.category_id,
            {
                "id": label.category_id,
                "name": label.name,
                "isthing": int(label.is_thing),
                "color": list(label.color),
            },
        )
    return list(seen.values())


def _instance_rows(paths: list[Path], images: dict[str, Record]) -> Iterator[Record]:
    number = 0
    for record in map(_read, paths):
        for region in record["regions"]:
            if record["name"] in images and "segmentation" in region:
                number += 1
                yield {
                    "id": number,
                    "image_id": images[record["name"]]["id"],
                    "category_id": region["category_id"],
                    "segmentation": region["segmentation"],
                    "area": region["area"],
                    "bbox": region["bbox"],
                    "iscrowd": 0,
                    # COCO wants a score of every result; classes by pixel have none.
                    "score": region.get("score", 1.0),
                }


def _panoptic_rows(paths: list[Path], images: dict[str, Record]) -> Iterator[Record]:
    for path in paths:
        record = _read(path)
        if record["name"] in images and "panoptic" in record["saved"]:
            keys = ("id", "category_id", "area", "bbox")
            segments = [
                {**{key: region[key] for key in keys}, "iscrowd": 0} for region in record["regions"]
            ]
            yield {
                "image_id": images[record["name"]]["id"],
                "file_name": record["name"] + ".png",
                "segments_info": segments,
            }


def _write_list(path: Path, head: Record, rows: Iterator[Record]) -> None:
    """Write ``head`` and the rows as its ``annotations``, one row at a time."""

    def write(file: Any) -> None:
        file.write(json.dumps(head)[:-1].encode() + b', "annotations": [')
        for i, row in enumerate(rows):
            file.write((",\n" if i else "\n").encode() + json.dumps(row).encode())
        file.write(b"\n]}\n")

    write_atomically(path, write)


def _table(paths: list[Path]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["image", "class", "pixels", "share", "regions", "mean_score"])
    for record in map(_read, paths):
        size = record["height"] * record["width"] * record["frames"]
        by_class: dict[str, list[Record]] = {}
        for region in record["regions"]:
            by_class.setdefault(region["class"], []).append(region)
        for name, regions in by_class.items():
            pixels = sum(region["area"] for region in regions)
            scores = [region["score"] for region in regions if "score" in region]
            mean = f"{sum(scores) / len(scores):.4f}" if scores else ""
            writer.writerow(
                [record["file_name"], name, pixels, f"{pixels / size:.6f}", len(regions), mean]
            )
        if record.get("no_data"):
            count = record["no_data"]
            row = [record["file_name"], "(no data)", count, f"{count / size:.6f}", "", ""]
            writer.writerow(row)
    return text.getvalue().encode()
