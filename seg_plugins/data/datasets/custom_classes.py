"""The classes that a description of a user's own dataset names, or its annotation files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import DatasetError
from .class_table import ClassTable, parse_class_table
from .coco_fields import objects
from .files import read_json
from .labelme import labels_of

__all__ = ["class_table"]


def class_table(content: dict[str, Any], name: str, folder: Path) -> ClassTable:
    """The classes: names, or mappings with name, color, thing and value.

    Args:
        content: the description.
        name: of its file, as the table's source.
        folder: which the paths in the description are relative to.

    Raises:
        DatasetError: a wrong value; no classes where no annotation file has them either.
    """
    entries = _entries(content, folder)
    colors, unlisted = content.get("labels") == "colours", content.get("unlisted", "error")
    if unlisted not in ("error", "ignore"):
        raise DatasetError(f"unlisted is {unlisted!r}; it should be 'error' or 'ignore'")
    without = [str(e["name"]) for e in entries if e.get("color") is None]
    if colors and without:
        raise DatasetError(
            f"classes: labels are colours, and {len(without)} of {len(entries)} classes have no "
            f"color: {', '.join(without[:5])}"
        )
    with_value = [e["label_value"] is not None for e in entries]
    if any(with_value) and not all(with_value):
        raise DatasetError("classes: give a value for all of them or for none")
    ignore_label = content.get("ignore_label", 255)
    if type(ignore_label) is not int or not len(entries) <= ignore_label <= 65535:
        raise DatasetError(
            f"ignore_label is {ignore_label!r}; it should be an integer above the ids of the "
            f"{len(entries)} classes, e.g. 255. (It is what pixels without a class become; for "
            "values of label images that are none of the classes': `unlisted: ignore`)"
        )
    table = parse_class_table(
        {"classes": entries, "ignore_label": ignore_label, "unlisted": unlisted}, name
    )
    if len(set(table.names)) != len(table.names):
        raise DatasetError("classes: a name stands twice")
    return replace(table, source=name)


def _entries(content: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """One mapping for each class, as files of class tables have them."""
    classes, task = content.get("classes"), content.get("task")
    if classes is None and content.get("format") == "labelme":
        return _labels(content, folder)
    if classes is None and task != "semantic" and content.get("format", "coco") == "coco":
        return _categories(content, folder)
    if not isinstance(classes, list) or not classes:
        raise DatasetError("classes should be a list of names, or of name, color, thing, value")
    entries = []
    for entry in classes:
        entry = {"name": entry} if not isinstance(entry, dict) else dict(entry)
        unknown = set(entry) - {"name", "color", "thing", "value"}
        if unknown or "name" not in entry:
            raise DatasetError(
                f"classes: {entry} should have name and may have color, thing, value"
            )
        entry["isthing"] = entry.pop("thing", task == "instance")
        entry["label_value"] = entry.pop("value", None)
        entries.append(entry)
    return entries


def _labels(content: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """The labels of labelme's files, of all parts, sorted."""
    parts = [content[split] for split in ("train", "val") if isinstance(content.get(split), dict)]
    folders = [folder / str(part.get("labels", "")).replace("\\", "/") for part in parts]
    found = {name for place in folders for name in labels_of(place)}
    if not found:
        raise DatasetError("classes is missing, and no file of train has a shape with a label")
    return [{"name": name, "isthing": True, "label_value": None} for name in sorted(found)]


def _categories(content: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """The categories of the training set's annotation file, in the order of their ids."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for split in ("train", "val"):
        part = content.get(split)
        if not isinstance(part, dict) or not isinstance(part.get("json"), str):
            continue  # told where the layouts are built
        path = folder / part["json"].replace("\\", "/")
        categories = sorted(
            objects(read_json(path), "categories", path),
            key=lambda c: c.integer("id", 0, 1 << 62),
        )
        found[split] = {
            c.text("name"): {
                "name": c.text("name"),
                "isthing": content["task"] == "instance" or bool(c.record.get("isthing", 0)),
                "label_value": None,
            }
            for c in categories
        }
    if not found.get("train"):
        raise DatasetError(
            "classes is missing, and train.json, which could tell them, has no categories"
        )
    new = sorted(found.get("val", {}).keys() - found["train"].keys())
    if new:
        raise DatasetError(
            f"classes is missing, and val.json has categories that train.json has not: "
            f"{', '.join(new[:5])}; list all classes"
        )
    return list(found["train"].values())
