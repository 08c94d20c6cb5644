"""YOLO's text files: a line per object, in fractions of the image."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.structures import BoxMode

from ..errors import DatasetError, Report, raise_error
from .class_table import ClassTable
from .files import read_lines
from .layouts import Record
from .pairing import Side
from .tool_shapes import image_size, polygon_annotation

__all__ = ["Yolo"]

# Rounding of the exporters; beyond it the numbers are no fractions.
_TOLERANCE = 2e-3


@dataclass(frozen=True)
class Yolo:
    """Images, and ``LABELS/STEM.txt`` for each that has objects.

    A line is a class (its place in the table) and either a polygon ``x1 y1 x2 y2 ...`` or a box,
    its centre and size; all as fractions of width and height. An image without a file, or with an
    empty one, has no objects.

    Attributes:
        images: their folder.
        labels: folder of the text files, with the images' names.
    """

    images: str
    labels: str

    def records(
        self, folder: Path, table: ClassTable, report: Report = raise_error
    ) -> list[Record]:
        """One dict per image, with its objects.

        Raises:
            DatasetError: a text file without image, two images of one name, an unknown class, or
                numbers that are no polygon or box in the image.
        """
        images = Side(folder / self.images, "", "images").files()
        texts = {
            path.relative_to(folder / self.labels).as_posix()[:-4]: path
            for path in sorted((folder / self.labels).rglob("*.txt"))
            if path.name != "classes.txt"
        }
        if not texts:
            raise DatasetError(f"{folder / self.labels}: no .txt file with objects")
        for stem in sorted(texts.keys() - images.keys()):
            report(DatasetError(f"{texts[stem]}: no image {stem}.* in {folder / self.images}"))
        records = []
        for number, (stem, paths) in enumerate(images.items(), 1):
            try:
                if len(paths) > 1:
                    raise DatasetError(f"{paths[0]} and {paths[1]} are of one name; which is it?")
                height, width = image_size(paths[0])
                record: Record = {
                    "file_name": str(paths[0]),
                    "image_id": number,
                    "height": height,
                    "width": width,
                    "annotations": [],
                }
                if stem in texts:
                    record["annotations"] = list(
                        _objects(texts[stem], len(table.classes), height, width, report)
                    )
                records.append(record)
            except DatasetError as error:
                report(error)
        without = len(images.keys() - texts.keys())
        if without:
            logging.getLogger(__name__).info(
                "%s: %d of %d images have no text file in %s, and so no objects",
                folder / self.images, without, len(images), folder / self.labels,
            )  # fmt: skip
        return records

    def paths(self, folder: Path) -> dict[str, str]:
        """Detectron2's evaluator writes an annotation file of its own."""
        return {}


def _objects(
    path: Path, classes: int, height: int, width: int, report: Report
) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(read_lines(path), 1):
        try:
            yield _object(line.split(), classes, height, width)
        except DatasetError as error:
            report(DatasetError(f"{path}: line {number}: {error}"))


def _object(words: list[str], classes: int, height: int, width: int) -> dict[str, Any]:
    try:
        category, values = int(float(words[0])), [float(word) for word in words[1:]]
    except ValueError:
        raise DatasetError(f"{' '.join(words)[:60]!r} is not a class and numbers") from None
    if not 0 <= category < classes or category != float(words[0]):
        raise DatasetError(
            f"class {words[0]} is none of the {classes} of the description (0 to {classes - 1})"
        )
    if not all(-_TOLERANCE <= value <= 1 + _TOLERANCE for value in values):
        raise DatasetError(
            f"numbers should be fractions of the image, in 0..1; found {min(values):g} to "
            f"{max(values):g}"
        )
    values = [min(max(value, 0.0), 1.0) for value in values]
    if len(values) == 4:
        x, y, w, h = values[0] * width, values[1] * height, values[2] * width, values[3] * height
        if not (w and h):
            raise DatasetError("the box has no area")
        return {"bbox": [x - w / 2, y - h / 2, w, h], "bbox_mode": BoxMode.XYWH_ABS,
                "category_id": category, "iscrowd": 0, "area": w * h}  # fmt: skip
    if len(values) < 6 or len(values) % 2:
        raise DatasetError(
            f"{len(values)} numbers after the class; a box has 4, a polygon 6 or more, in pairs"
        )
    corners = [value * (height if i % 2 else width) for i, value in enumerate(values)]
    return polygon_annotation([corners], category, height, width)
