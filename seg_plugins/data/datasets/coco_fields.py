"""Checked access to the fields of COCO annotation files."""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from detectron2.utils.logger import log_first_n

from ..errors import DatasetError, Report, raise_error
from .class_table import ClassTable, DatasetClass, spread_colors

__all__ = [
    "Fields",
    "Records",
    "as_integer",
    "category_map",
    "dicts",
    "index_images",
    "objects",
    "table_of_file",
]

MAX_SIDE = 1 << 16
# As many digits as any id that fits into 64 bits.
_INTEGER = re.compile(r"\s*[+-]?[0-9]{1,19}\s*")


class Records(list):
    """Records of an annotation file, and how it numbers the classes.

    Attributes:
        category_ids: category id in the file -> contiguous id.
        table: the classes that the contiguous ids count.
    """

    def __init__(
        self,
        records: Iterable[dict[str, Any]],
        category_ids: Mapping[int, int],
        table: ClassTable,
    ) -> None:
        super().__init__(records)
        self.category_ids, self.table = dict(category_ids), table


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

    def integer(self, field: str, low: int, high: int) -> int:
        """An integer in [low, high]; one in quotes, or written as 7.0, is read as the number."""
        value = as_integer(self.record.get(field))
        if value is None:
            raise self.fail(field, f"should be an integer, not {_shown(self.record.get(field))}")
        if not low <= value <= high:
            raise self.fail(field, f"is {_shown(value)}, outside {low} to {high}")
        return value

    def flag(self, field: str) -> bool:
        """0 or 1, a truth value, or one of these in quotes; missing or null is False."""
        value = self.record.get(field)
        if value is None:
            return False
        known = {"false": 0, "true": 1}
        number = known.get(str(value).lower(), as_integer(value))
        if number not in (0, 1):
            raise self.fail(field, f"should be 0 or 1, not {_shown(value)}")
        return bool(number)

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


def category_map(
    content: dict[str, Any],
    table: ClassTable,
    path: object,
) -> dict[int, int]:
    """Category id in the file -> contiguous id in the table.

    The table's category ids count where it has them, else the names. A category that nothing is
    annotated with may be unknown to the table, as the root of a tree of categories is that some
    exporters write: it is left out, with a line in the log. A file may lack categories.

    Raises:
        DatasetError: an annotated category that the table does not know, a duplicate id, two
            annotated categories of one name, or one that contradicts the table.
    """
    by_id, by_name = table.category_map(), {c.name: i for i, c in enumerate(table.classes)}
    used = _annotations_of_categories(content)
    mapping: dict[int, int] = {}
    names: dict[int, str] = {}
    for fields in objects(content, "categories", path):
        category_id = fields.integer("id", 0, 1 << 62)
        name = names[category_id] = _new_name(fields, category_id, names)
        known = by_id.get(category_id) if by_id else by_name.get(name)
        if known is None:
            if used[category_id]:
                raise fields.fail(
                    "name",
                    f"{name!r} is none of the dataset's {len(by_name)} classes, and "
                    f"{used[category_id]} annotations have it",
                )
            continue
        _check_agreement(fields, name, known, table)
        other = next((c for c, i in mapping.items() if i == known), None)
        if other is not None:
            if used[category_id] and used[other]:
                raise fields.fail(
                    "name",
                    f"{name!r} is that of category {other} too: give all annotations one of them",
                )
            if used[category_id]:
                del mapping[other]
            else:
                continue
        mapping[category_id] = known
    left_out = [f"{c} {n!r}" for c, n in names.items() if c not in mapping]
    if left_out:
        shown = ", ".join(left_out[:5]) + (", ..." if len(left_out) > 5 else "")
        log_first_n(
            logging.WARNING,
            f"{path}: {len(left_out)} categories without an annotation are left out: {shown}",
            key="message",
        )
    return mapping


def table_of_file(content: dict[str, Any], path: object) -> ClassTable:
    """The classes that a file itself lists, in the order of their ids, as Detectron2 takes them.

    A category without ``isthing`` is a thing.

    Raises:
        DatasetError: a category without id or name, or one that stands twice.
    """
    found: dict[int, DatasetClass] = {}
    entries = list(objects(content, "categories", path))
    for fields, color in zip(entries, spread_colors(len(entries)), strict=True):
        category_id, name = fields.integer("id", 0, 1 << 62), fields.text("name")
        if category_id in found:
            raise fields.fail("id", "stands twice among the categories")
        is_thing = fields.flag("isthing") or fields.record.get("isthing") is None
        found[category_id] = DatasetClass(name, color, is_thing, category_id)
    return ClassTable(tuple(found[i] for i in sorted(found)), source=str(path))


def _new_name(fields: Fields, category_id: int, names: dict[int, str]) -> str:
    name = fields.text("name")
    if category_id in names:
        raise fields.fail(
            "id", f"stands twice among the categories: for {names[category_id]!r} and {name!r}"
        )
    return name


def _check_agreement(fields: Fields, name: str, known: int, table: ClassTable) -> None:
    """Raise DatasetError where the file's name or kind of a category is that of another class."""
    expected = table.classes[known]
    if name != expected.name and name in table.names:
        raise fields.fail("name", f"is {name!r}; the dataset's class of this id is {expected.name}")
    if "isthing" in fields.record and fields.flag("isthing") != expected.is_thing:
        kinds = {True: "a thing", False: "stuff"}
        raise fields.fail(
            "isthing",
            f"makes {name!r} {kinds[not expected.is_thing]}; among the dataset's classes it is "
            f"{kinds[expected.is_thing]}",
        )


def _annotations_of_categories(content: dict[str, Any]) -> Counter[int | None]:
    """Category id -> annotations or segments that have it; no check of anything else."""
    found: Counter[int | None] = Counter()
    for annotation in dicts(content.get("annotations")):
        for record in (annotation, *dicts(annotation.get("segments_info"))):
            found[as_integer(record.get("category_id"))] += 1
    return found


def dicts(value: Any) -> list[dict[str, Any]]:
    """The objects of a list in a file; none where it is no list."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def as_integer(value: Any) -> int | None:
    """The integer that `value` is or spells; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        return int(value)
    return None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
