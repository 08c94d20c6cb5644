"""Layouts on disk of instances and panoptic segments, read into Detectron2's dicts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import Report, raise_error
from .class_table import ClassTable
from .coco_fields import Records, category_map
from .coco_instances import read_instances
from .coco_panoptic import read_panoptic
from .files import read_json
from .layouts import Record
from .mask_folders import read_bitmasks, read_mask_folders, read_object_masks

__all__ = [
    "Bitmasks",
    "CocoInstances",
    "CocoPanoptic",
    "CocoPanopticSeparated",
    "MaskFolders",
    "ObjectMasks",
]


@dataclass(frozen=True)
class CocoInstances:
    """COCO instances JSON and a folder of images."""

    images: str
    json: str

    def records(
        self, folder: Path, table: ClassTable, report: Report = raise_error
    ) -> list[Record]:
        """One dict per image, with its annotations."""
        records = read_instances(folder / self.json, folder / self.images, table.things, report)
        places = [place for place, c in enumerate(table.classes) if c.is_thing]
        ids = {category: places[i] for category, i in records.category_ids.items()}
        return Records(records, ids, table)

    def paths(self, folder: Path) -> dict[str, str]:
        """For Detectron2's COCO evaluators."""
        return {"json_file": str(folder / self.json), "image_root": str(folder / self.images)}


@dataclass(frozen=True)
class CocoPanoptic:
    """COCO panoptic JSON with its PNGs, beside an instances JSON and semantic labels if any."""

    images: str
    panoptic: str
    json: str
    instances_json: str = ""
    labels: str = ""
    image_suffix: str = ".jpg"

    def records(
        self, folder: Path, table: ClassTable, report: Report = raise_error
    ) -> list[Record]:
        """One dict per annotated image, with its segments."""
        records = read_panoptic(
            folder / self.json, folder / self.images, folder / self.panoptic, table, report
        )
        if self.labels:
            for record in records:
                name = Path(record["pan_seg_file_name"]).name
                record["sem_seg_file_name"] = str(folder / self.labels / name)
        return records

    def paths(self, folder: Path) -> dict[str, str]:
        """For Detectron2's panoptic evaluator."""
        paths = {
            "image_root": str(folder / self.images),
            "panoptic_root": str(folder / self.panoptic),
            "panoptic_json": str(folder / self.json),
        }
        if self.instances_json:
            paths["json_file"] = str(folder / self.instances_json)
        return paths


@dataclass(frozen=True)
class CocoPanopticSeparated:
    """Detectron2's "separated" form: instances from their own JSON, a semantic label beside them.

    Attributes:
        labels: folder of semantic labels with the names of the panoptic PNGs.
        all_classes: the labels hold the ids of all classes; False for Detectron2's files, where
            things are 0 and stuff counts from 1.
    """

    images: str
    instances_json: str
    labels: str
    panoptic: str
    json: str
    all_classes: bool = False

    def records(
        self, folder: Path, table: ClassTable, report: Report = raise_error
    ) -> list[Record]:
        """One dict per image, with its annotations and its label."""
        records = read_instances(
            folder / self.instances_json, folder / self.images, table.things, report
        )
        for record in records:
            name = Path(record["file_name"]).relative_to(folder / self.images)
            record["sem_seg_file_name"] = str(folder / self.labels / name.with_suffix(".png"))
        # The panoptic file numbers the stuff as well.
        ids = category_map(read_json(folder / self.json), table, folder / self.json)
        return Records(records, ids, table)

    def paths(self, folder: Path) -> dict[str, str]:
        """For Detectron2's panoptic evaluator."""
        return {
            "image_root": str(folder / self.images),
            "panoptic_root": str(folder / self.panoptic),
            "panoptic_json": str(folder / self.json),
            "sem_seg_root": str(folder / self.labels),
            "json_file": str(folder / self.instances_json),
        }


@dataclass(frozen=True)
class MaskFolders:
    """A folder per image with one binary mask image per instance, all of one class.

    Attributes:
        folder: holds ``ID/images/*`` and ``ID/masks/*`` for every image.
        part: (first, last) as fractions of the images in a fixed random order.
    """

    folder: str
    part: tuple[float, float] = (0.0, 1.0)

    def records(
        self, folder: Path, table: ClassTable, report: Report = raise_error
    ) -> list[Record]:
        """One dict per image, with its instances as run lengths."""
        return read_mask_folders(folder / self.folder, self.part, report)

    def paths(self, folder: Path) -> dict[str, str]:
        """Detectron2's evaluator writes an annotation file of its own."""
        return {}


@dataclass(frozen=True)
class ObjectMasks:
    """Images and one mask per object beside them, all of one class, as INRIA's Graz-02.

    Attributes:
        folder: holds ``STEM.image.png`` and ``STEM.mask.N.png``.
        stems: a list file of stems.
    """

    folder: str
    stems: str

    def records(
        self, folder: Path, table: ClassTable, report: Report = raise_error
    ) -> list[Record]:
        """One dict per image, with its instances as run lengths."""
        return read_object_masks(folder / self.folder, folder / self.stems, report)

    def paths(self, folder: Path) -> dict[str, str]:
        """Detectron2's evaluator writes an annotation file of its own."""
        return {}


@dataclass(frozen=True)
class Bitmasks:
    """BDD100K's bitmasks: PNGs with category, flags and instance number in the channels."""

    images: str
    bitmasks: str

    def records(
        self, folder: Path, table: ClassTable, report: Report = raise_error
    ) -> list[Record]:
        """One dict per image, with its instances as run lengths."""
        return read_bitmasks(
            folder / self.images, folder / self.bitmasks, table.category_map(), report
        )

    def paths(self, folder: Path) -> dict[str, str]:
        """Detectron2's evaluator writes an annotation file of its own."""
        return {}
