"""The catalogue: one row per dataset split, and their registration with Detectron2."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from ..errors import DatasetError
from ..label_encoding import LabelEncoding
from .class_table import ClassTable, load_class_table
from .layouts import CocoInstances, CocoPanoptic, FileList, Folders, Layout
from .root import dataset_root
from .shapes import ensure_shapes

__all__ = ["ROWS", "Row", "register_datasets"]

# Task -> Detectron2's evaluator_type.
_EVALUATORS = {"semantic": "sem_seg", "instance": "coco", "panoptic": "coco_panoptic_seg"}
# Panoptic ids in results: category * label_divisor + instance.
_LABEL_DIVISOR = 1000


@dataclass(frozen=True)
class Row:
    """One split of a dataset.

    Attributes:
        name: as users type it.
        task: "semantic", "instance" or "panoptic".
        table: name of the class table.
        folder: the dataset's folder below the dataset root.
        layout: how the files of the split lie in it.
        prepare: makes the files if need be and returns the folder, for generated datasets.
        encoding: how class ids are stored in label images; None where they are stored as such.
    """

    name: str
    task: str
    table: str
    folder: str
    layout: Layout
    prepare: Callable[[], Path] | None = None
    encoding: LabelEncoding | None = None


def _shapes_rows() -> list[Row]:
    rows = []
    for split in ("train", "val"):
        images = f"images/{split}"
        instances = f"annotations/instances_{split}.json"
        layouts: dict[str, tuple[str, Layout]] = {
            "shapes": ("semantic", Folders(images, f"labels/{split}", image_suffix=".png")),
            "shapes_instance": ("instance", CocoInstances(images, instances)),
            "shapes_panoptic": (
                "panoptic",
                CocoPanoptic(
                    images,
                    f"panoptic/{split}",
                    f"annotations/panoptic_{split}.json",
                    instances_json=instances,
                    labels=f"labels/{split}",
                ),
            ),
        }
        for name, (task, layout) in layouts.items():
            rows.append(Row(f"{name}_{split}", task, "shapes", "shapes", layout, ensure_shapes))
    return rows


ROWS: tuple[Row, ...] = (
    *_shapes_rows(),
    # 480x360 version with the SegNet split; the lists carry that repository's path prefix.
    Row("camvid_train", "semantic", "camvid", "CamVid", FileList("train.txt", keep_parts=2)),
    Row("camvid_val", "semantic", "camvid", "CamVid", FileList("val.txt", keep_parts=2)),
    Row("camvid_test", "semantic", "camvid", "CamVid", FileList("test.txt", keep_parts=2)),
)


def register_datasets() -> None:
    """Register every row whose name Detectron2 does not know yet; reads no file."""
    for row in ROWS:
        if row.name not in DatasetCatalog.list():
            register_row(row, load_class_table(row.table))


def register_row(row: Row, table: ClassTable) -> None:
    """Register one row with the classes of `table`."""
    DatasetCatalog.register(row.name, partial(_load, row, table))
    metadata = MetadataCatalog.get(row.name)
    metadata.set(evaluator_type=_EVALUATORS[row.task], **_class_metadata(row, table))
    _set_paths(row, dataset_root() / row.folder)


def _load(row: Row, table: ClassTable) -> list[dict[str, Any]]:
    folder = row.prepare() if row.prepare else dataset_root() / row.folder
    try:
        records = row.layout.records(folder, table)
    except DatasetError as error:
        raise DatasetError(f"dataset '{row.name}': {error}") from None
    if row.encoding is not None:
        for record in records:
            record["sem_seg_encoding"] = row.encoding
    _set_paths(row, folder)
    return records


def _set_paths(row: Row, folder: Path) -> None:
    # Detectron2 refuses to change a metadata entry, but the root may change between two loads
    # (a test, a notebook), and a generated dataset may have to move to the cache folder.
    vars(MetadataCatalog.get(row.name)).update(row.layout.paths(folder))


def _class_metadata(row: Row, table: ClassTable) -> dict[str, Any]:
    things = table.things
    thing_metadata = {
        "thing_classes": things.names,
        "thing_colors": things.colors,
    }
    if row.task == "instance":
        if things.category_map():
            thing_metadata["thing_dataset_id_to_contiguous_id"] = things.category_map()
        return thing_metadata
    metadata: dict[str, Any] = {
        "stuff_classes": table.names,
        "stuff_colors": table.colors,
        "ignore_label": table.ignore_label,
        "sem_seg_loading_fn": row.encoding or LabelEncoding(ignore_label=table.ignore_label),
    }
    if row.task == "panoptic":
        ids = table.category_map()
        metadata |= thing_metadata
        metadata["label_divisor"] = _LABEL_DIVISOR
        metadata["thing_dataset_id_to_contiguous_id"] = {
            category: i for category, i in ids.items() if table.classes[i].is_thing
        }
        # As for Detectron2's "standard" panoptic datasets: all classes, things first.
        metadata["stuff_dataset_id_to_contiguous_id"] = ids
    return metadata
