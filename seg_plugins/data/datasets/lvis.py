"""Reading LVIS JSON: COCO instances of which each image has only some categories annotated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import DatasetError, Report, raise_error
from .class_table import ClassTable
from .coco_fields import Fields, Records, as_integer, dicts, objects
from .coco_instances import instances_of
from .files import read_json

__all__ = ["FREQUENCIES", "LvisRecords", "number_from_one", "read_lvis"]

#: Rare, common, frequent: categories in at most 10, at most 100 and more of the training images.
FREQUENCIES = ("r", "c", "f")
# Categories that an image is known to lack, and those whose objects are not all marked in it.
_FEDERATED = ("neg_category_ids", "not_exhaustive_category_ids")


class LvisRecords(Records):
    """Records of an LVIS file.

    Attributes:
        frequencies: contiguous id -> "r", "c" or "f", of each category that the file lists; "" for
            one of which it does not tell.
    """

    frequencies: dict[int, str]


def read_lvis(
    path: Path, image_root: Path, table: ClassTable | None, report: Report = raise_error
) -> LvisRecords:
    """Read an LVIS file, version 0.5 or 1, into the dicts of Detectron2's ``load_lvis_json``.

    They are those of :func:`~seg_plugins.data.datasets.coco_instances.read_instances`, and have
    ``neg_category_ids`` and ``not_exhaustive_category_ids``, where the file does; ids as in it.

    Args:
        path: the JSON file.
        image_root: COCO's folder; the end of an image's ``coco_url``, such as
            ``val2017/000000155379.jpg``, tells the file in it, or else its ``file_name``.
        table: the classes; see ``read_instances``.
        report: called with the error of each image or annotation that is wrong.

    Raises:
        DatasetError: see ``read_instances``; or a frequency that LVIS does not have.
    """
    content = read_json(path)
    for image in dicts(content.get("images")):
        url = image.get("coco_url")
        if isinstance(url, str) and url.count("/"):
            image["file_name"] = "/".join(url.split("/")[-2:])
    records = instances_of(content, path, image_root, table, report)
    found = {record["image_id"]: record for record in records}
    for fields in objects(content, "images", path, report):
        record = found.get(as_integer(fields.record.get("id")))
        if record is None:
            continue  # which has been reported
        try:
            record |= _federated(fields)
        except DatasetError as error:
            del found[record["image_id"]]
            report(error)
    result = LvisRecords(found.values(), records.category_ids, records.table)
    result.frequencies = _frequencies(content, path, records.category_ids)
    return result


def number_from_one(table: ClassTable | None) -> ClassTable | None:
    """The table with ids from 1, as LVIS has them, where its metadata does not give the ids."""
    if table is None or table.category_map():
        return table
    numbered = (replace(c, category_id=place) for place, c in enumerate(table.classes, 1))
    return replace(table, classes=tuple(numbered))


def _federated(fields: Fields) -> dict[str, list[int]]:
    found = {}
    for key in _FEDERATED:
        value = fields.record.get(key)
        if value is None:
            continue
        ids = [as_integer(one) for one in value] if isinstance(value, list) else [None]
        if None in ids:
            raise fields.fail(key, f"should be a list of category ids, not {repr(value)[:60]}")
        found[key] = [category for category in ids if category is not None]
    return found


def _frequencies(content: dict[str, Any], path: Path, ids: dict[int, int]) -> dict[int, str]:
    found = {}
    for fields in objects(content, "categories", path):
        frequency = fields.record.get("frequency", "")
        if frequency not in ("", *FREQUENCIES):
            raise fields.fail("frequency", f"is {repr(frequency)[:60]}; LVIS has r, c and f")
        category = as_integer(fields.record["id"])
        if category in ids:
            found[ids[category]] = frequency
    return found
