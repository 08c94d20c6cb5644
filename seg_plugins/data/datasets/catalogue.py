"""The catalogue: its rows registered with Detectron2, and loaded."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from ...io.label_encoding import LabelEncoding
from ...tasks import task_named
from ..errors import DatasetError, Report, raise_error
from .class_table import ClassTable, load_class_table
from .coco_fields import Records
from .coco_instances import read_instances
from .instance_layouts import CocoInstances, CocoPanoptic, CocoPanopticSeparated
from .lvis import number_from_one, read_lvis
from .root import dataset_root
from .row import Row
from .rows import ROWS

__all__ = [
    "load_dataset",
    "register_datasets",
    "register_row",
    "thing_table",
]

# Panoptic ids in results: category * label_divisor + instance.
_LABEL_DIVISOR = 1000
_IDS_SUFFIX = "_dataset_id_to_contiguous_id"
_COCO_LAYOUTS = (CocoInstances, CocoPanoptic, CocoPanopticSeparated)


# Prefix of Detectron2's names -> the class table with their colours.
_DETECTRON2_COLORS = {"cityscapes_fine_sem_seg": "cityscapes", "ade20k_sem_seg": "ade20k_150"}
# What register_row has registered.
_REGISTERED: dict[str, tuple[Row, ClassTable]] = {}


def register_datasets() -> None:
    """Register every row whose name Detectron2 does not know yet; reads no file.

    Datasets that Detectron2 registers itself stay its own; they get the official colours that it
    lacks.
    """
    for row in ROWS:
        if row.name not in DatasetCatalog.list():
            register_row(row, load_class_table(row.table))
    for prefix, table_name in _DETECTRON2_COLORS.items():
        colors = load_class_table(table_name).colors
        for name in DatasetCatalog.list():
            metadata = MetadataCatalog.get(name)
            if name.startswith(prefix) and "stuff_colors" not in metadata.as_dict():
                metadata.stuff_colors = colors


def register_row(row: Row, table: ClassTable) -> None:
    """Register one row with the classes of `table`."""
    _REGISTERED[row.name] = row, table
    DatasetCatalog.register(row.name, partial(_load, row, table))
    metadata = MetadataCatalog.get(row.name)
    evaluator = row.evaluator or task_named(row.task.removesuffix("_separated")).evaluator
    metadata.set(evaluator_type=evaluator, **_class_metadata(row, table))
    _set_paths(row, dataset_root() / row.folder)


def load_dataset(name: str, report: Report = raise_error) -> list[dict[str, Any]]:
    """Load a registered dataset; like ``DatasetCatalog.get`` but for the report.

    Args:
        name: of any dataset. COCO instances and LVIS are read by this package's reader, whoever
            has registered them.
        report: called with the error of each record that is wrong.

    Raises:
        DatasetError: an unknown name; files that are missing or unreadable as a whole.
    """
    if name in _REGISTERED:
        return _load(*_REGISTERED[name], report)
    registered = _loader(name)
    metadata = MetadataCatalog.get(name).as_dict() if name in MetadataCatalog.list() else {}
    if metadata.get("json_file"):
        if _is_lvis(registered, metadata):
            return _load_lvis(name, metadata, report)
        if registered is None or _has_made(registered, "coco.register_coco_instances"):
            return _load_coco(name, metadata, report)
    if registered is None:
        near = ", ".join(difflib.get_close_matches(name, DatasetCatalog.list(), n=3)) or "none"
        raise DatasetError(f"dataset '{name}' is not registered; similar names: {near}")
    return registered()


def _loader(name: str) -> Callable[[], list[dict[str, Any]]] | None:
    return DatasetCatalog[name] if name in DatasetCatalog.list() else None


def _has_made(loader: Callable[[], list[dict[str, Any]]], function: str) -> bool:
    """Whether it is the loader that one of Detectron2's functions registers."""
    where = f"{loader.__module__}.{getattr(loader, '__qualname__', '')}"
    return where.startswith(f"detectron2.data.datasets.{function}")


def _is_lvis(loader: Callable[[], list[dict[str, Any]]] | None, metadata: dict[str, Any]) -> bool:
    """Whether Detectron2's ``register_lvis_instances`` has registered it, or metadata alone do."""
    if loader is None:
        return metadata.get("evaluator_type") == "lvis"
    return _has_made(loader, "lvis.register_lvis_instances")


def _load_coco(name: str, metadata: dict[str, Any], report: Report) -> list[dict[str, Any]]:
    """COCO instances that Detectron2's ``register_coco_instances`` has registered."""
    if "keypoint_names" in metadata:  # which this package's reader leaves out
        return DatasetCatalog.get(name)
    path, images = Path(metadata["json_file"]), Path(metadata.get("image_root", ""))
    records = read_instances(path, images, thing_table(metadata), report)
    _set_classes(name, metadata, records)
    return records


def _load_lvis(name: str, metadata: dict[str, Any], report: Report) -> list[dict[str, Any]]:
    """LVIS that Detectron2's ``register_lvis_instances`` has registered: needs no package lvis."""
    path, images = Path(metadata["json_file"]), Path(metadata.get("image_root", ""))
    records = read_lvis(path, images, number_from_one(thing_table(metadata)), report)
    _set_classes(name, metadata, records)
    # Detectron2 refuses to change an entry, but the file may have changed since it was read.
    vars(MetadataCatalog.get(name))["thing_frequencies"] = records.frequencies
    return records


def _set_classes(name: str, metadata: dict[str, Any], records: Records) -> None:
    """Complete the metadata with what the file says of the classes."""
    if "thing_classes" not in metadata:
        # As Detectron2's reader leaves them.
        MetadataCatalog.get(name).thing_classes = records.table.names
    if "thing_dataset_id_to_contiguous_id" not in metadata:
        MetadataCatalog.get(name).thing_dataset_id_to_contiguous_id = records.category_ids


def thing_table(metadata: Mapping[str, Any]) -> ClassTable | None:
    """The countable classes of a dataset's metadata; None where it names none.

    Detectron2's panoptic datasets repeat all classes as things; the ids tell which are.
    """
    names = list(metadata.get("thing_classes") or ())
    if not names:
        return None
    ids = {i: c for c, i in (metadata.get("thing_dataset_id_to_contiguous_id") or {}).items()}
    places = list(range(len(names)))
    if ids and names == list(metadata.get("stuff_classes") or ()):
        places = sorted(ids)
    table = ClassTable.of_names([names[i] for i in places])
    if not ids:
        return table
    numbered = (
        replace(c, category_id=ids.get(i)) for c, i in zip(table.classes, places, strict=True)
    )
    return replace(table, classes=tuple(numbered))


def _load(row: Row, table: ClassTable, report: Report = raise_error) -> list[dict[str, Any]]:
    folder = row.prepare() if row.prepare else dataset_root() / row.folder
    try:
        records = row.layout.records(folder, table, report)
    except DatasetError as error:
        raise DatasetError(f"dataset '{row.name}': {error}") from None
    encoding = _label_encoding(row, table)
    if encoding is not None and row.task != "panoptic":
        for record in records:
            record.setdefault("sem_seg_encoding", encoding)  # windows have one of their own
    _set_paths(row, folder)
    if isinstance(records, Records) and not table.category_map():
        # The classes are told by name: only the file has the ids that evaluators need.
        vars(MetadataCatalog.get(row.name)).update(
            _category_metadata(row, table, records.category_ids)
        )
    return records


def _set_paths(row: Row, folder: Path) -> None:
    # Detectron2 refuses to change a metadata entry, but the root may change between two loads
    # (a test, a notebook), and a generated dataset may have to move to the cache folder.
    vars(MetadataCatalog.get(row.name)).update(row.layout.paths(folder))


def _label_encoding(row: Row, table: ClassTable) -> LabelEncoding | None:
    """How the row's label images store its classes; None where they hold the ids."""
    if row.task == "instance":
        return None
    if isinstance(row.layout, CocoPanopticSeparated):
        return table.things_as_one().encoding() if row.layout.all_classes else None
    return table.encoding(colors=row.color_labels)


def _class_metadata(row: Row, table: ClassTable) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    if row.task != "semantic":
        things = table.things
        metadata |= {"thing_classes": things.names, "thing_colors": things.colors}
        metadata |= _category_metadata(row, table, table.category_map())
    if row.task != "instance":
        shown = table.things_as_one() if row.task == "panoptic_separated" else table
        metadata |= {
            "stuff_classes": shown.names,
            "stuff_colors": shown.colors,
            "ignore_label": table.ignore_label,
            "sem_seg_loading_fn": _label_encoding(row, table)
            or LabelEncoding(ignore_label=table.ignore_label),
        }
    if row.task == "panoptic":
        metadata["label_divisor"] = _LABEL_DIVISOR
    return metadata


def _category_metadata(row: Row, table: ClassTable, ids: dict[int, int]) -> dict[str, Any]:
    """What evaluators translate contiguous ids back with; `ids` are over all classes."""
    if not ids:
        return {}
    things = {c: i for c, i in ids.items() if table.classes[i].is_thing}
    stuff = {c: i for c, i in ids.items() if c not in things}
    if row.task == "panoptic":
        # As for Detectron2's "standard" panoptic datasets: all classes, things too.
        return {
            "thing_dataset_id_to_contiguous_id": things,
            "stuff_dataset_id_to_contiguous_id": ids,
        }
    thing_ids, stuff_ids = (
        [i for i, c in enumerate(table.classes) if c.is_thing == kind] for kind in (True, False)
    )
    metadata = {
        "thing_dataset_id_to_contiguous_id": {c: thing_ids.index(i) for c, i in things.items()}
    }
    if row.task == "panoptic_separated":
        # As in Detectron2, category 0 stands for the things, unless the file has such a one.
        metadata["stuff_dataset_id_to_contiguous_id"] = {0: 0} | {
            c: stuff_ids.index(i) + 1 for c, i in stuff.items()
        }
    return metadata
