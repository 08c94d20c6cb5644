"""Checked access to the fields of COCO annotation files."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from ..errors import DatasetError, Report, raise_error
from .class_table import ClassTable

__all__ = ["Fields", "category_map", "index_images", "objects"]

MAX_SIDE = 1 << 16


class Fields:
    """One record of an annotation file whose fields are checked as they are read.

    Args:
        record: the decoded JSON value.
        where: file and record for messages, e.g. ``a.json: annotation 7``.
    """

    def __init__(self, record: Any, where: str) -> None:
        self.where = where
        if not isinstance(record, dict):
            raise DatasetError(f"{where}: expected an object, found a {type(record).__name__}")
        self.record = record

    def fail(self, field: str, problem: str) -> DatasetError:
        """The error for a field, to be raised."""
        return DatasetError(f"{self.where}: {field} {problem}")

    def integer(self, field: str, low: int, high: int, default: int | None = None) -> int:
        """An integer in [low, high]."""
        value = self.record.get(field, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or (isinstance(value, bool) and high > 1):
            raise self.fail(field, f"should be an integer, not {_shown(value)}")
        if not low <= value <= high:
            raise self.fail(field, f"is {_shown(value)}, outside {low} to {high}")
        return int(value)

    def number(self, field: str, low: float) -> float | None:
        """A finite number of at least `low`; None where the file has none or null."""
        value = self.record.get(field)
        if value is None:
            return None
        (number,) = self.numbers(field, [value], 1)
        if number < low:
            raise self.fail(field, f"is {_shown(value)}, below {low:g}")
        return float(number)

    def text(self, field: str) -> str:
        """A string that is not empty."""
        value = self.record.get(field)
        if not isinstance(value, str) or not value:
            raise self.fail(field, f"should be a string, not {_shown(value)}")
        return value

    def numbers(self, field: str, value: Any, count: int | None = None) -> list[float]:
        """A list of finite numbers, of the length `count` if given."""
        if not isinstance(value, list) or (count is not None and len(value) != count):
            raise self.fail(
                field, f"should be a list of {count or ''} numbers, not {_shown(value)}"
            )
        for number in value:
            if (
                not isinstance(number, (int, float))
                or isinstance(number, bool)
                or not -1e9 < number < 1e9
            ):
                raise self.fail(field, f"holds {_shown(number)} where a number is expected")
        return value

    def box(self, field: str = "bbox") -> list[float]:
        """x, y, width, height; the sides may be 0 but not negative."""
        x, y, width, height = self.numbers(field, self.record.get(field), 4)
        if width < 0 or height < 0 or not all(map(math.isfinite, (x, y, width, height))):
            raise self.fail(field, f"has a negative side: {[x, y, width, height]}")
        return [float(x), float(y), float(width), float(height)]


def objects(
    content: dict[str, Any], key: str, path: object, report: Report = raise_error
) -> Iterator[Fields]:
    """The records of a list in the file, each with its place and id for messages."""
    records = content.get(key)
    if not isinstance(records, list):
        raise DatasetError(f"{path}: '{key}' should be a list, not {_shown(records)}")
    for place, record in enumerate(records):
        name = key.removesuffix("s").replace("categorie", "category")
        shown = record.get("id", record.get("image_id")) if isinstance(record, dict) else None
        label = f"{name} {_shown(shown)}" if isinstance(shown, (int, str)) else f"{key}[{place}]"
        try:
            fields = Fields(record, f"{path}: {label}")
        except DatasetError as error:
            report(error)
        else:
            yield fields


def index_images(
    content: dict[str, Any], path: object, report: Report = raise_error
) -> dict[int, tuple[str, int, int]]:
    """Image id -> file name, height, width."""
    images: dict[int, tuple[str, int, int]] = {}
    for fields in objects(content, "images", path, report):
        try:
            image_id = fields.integer("id", -(1 << 62), 1 << 62)
            if image_id in images:
                raise fields.fail("id", "stands twice among the images")
            height, width = (fields.integer(side, 1, MAX_SIDE) for side in ("height", "width"))
            images[image_id] = (fields.text("file_name"), height, width)
        except DatasetError as error:
            report(error)
    return images


def category_map(content: dict[str, Any], table: ClassTable, path: object) -> dict[int, int]:
    """Category id in the file -> contiguous id in the table.

    The table's category ids count where it has them, else the names.

    Raises:
        DatasetError: a category that the table does not know, or a duplicate id.
    """
    by_id, by_name = table.category_map(), {c.name: i for i, c in enumerate(table.classes)}
    mapping: dict[int, int] = {}
    for fields in objects(content, "categories", path):
        category_id = fields.integer("id", 0, 1 << 62)
        name = fields.text("name")
        if category_id in mapping:
            raise fields.fail("id", "stands twice among the categories")
        known = by_id.get(category_id) if by_id else by_name.get(name)
        if known is None:
            raise fields.fail("name", f"{name!r} is none of the dataset's {len(by_name)} classes")
        mapping[category_id] = known
    return mapping


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
