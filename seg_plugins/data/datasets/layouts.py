"""Layouts on disk: how a dataset's files lie, and reading them into Detectron2's dicts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from ..errors import DatasetError, Report, raise_error
from .class_table import ClassTable
from .coco_instances import read_instances
from .coco_panoptic import read_panoptic
from .files import inside, read_lines
from .mask_folders import read_bitmasks, read_mask_folders, read_object_masks

__all__ = [
    "Bitmasks",
    "CocoInstances",
    "CocoPanoptic",
    "FileList",
    "Folders",
    "Layout",
    "MaskFolders",
    "ObjectMasks",
]

Record = dict[str, Any]


class Layout(Protocol):
    """What the catalogue asks of a layout."""

    def records(
        self, folder: Path, table: ClassTable, report: Report = raise_error
    ) -> list[Record]:
        """Read the split in `folder`.

        Args:
            folder: the dataset's folder.
            table: its classes.
            report: called with the error of each record that is wrong.

        Raises:
            DatasetError: files are missing or unreadable as a whole.
        """

    def paths(self, folder: Path) -> dict[str, str]:
        """The metadata entries that evaluators read files from."""


@dataclass(frozen=True)
class FileList:
    """A list file with one line ``image label`` per sample.

    Attributes:
        list_file: below the dataset's folder.
        keep_parts: the last parts of each path that count, where lists carry a prefix of the
            machine they were made on; 0 keeps all.
    """

    list_file: str
    keep_parts: int = 0

    def records(
        self, folder: Path, table: ClassTable, report: Report = raise_error
    ) -> list[Record]:
        """One dict per line."""
        records = []
        for number, line in enumerate(read_lines(folder / self.list_file), 1):
            names = line.split()
            try:
                if len(names) != 2:
                    raise DatasetError(f"expected 'image label', got {line!r}")
                image, label = (folder / self._kept(name) for name in names)
            except DatasetError as error:
                report(DatasetError(f"{folder / self.list_file}, line {number}: {error}"))
                continue
            records.append(semantic_record(image, label))
        return records

    def paths(self, folder: Path) -> dict[str, str]:
        """Nothing beyond the records."""
        return {}

    def _kept(self, name: str) -> str:
        parts = PurePosixPath(name).parts
        return inside(PurePosixPath(*parts[-self.keep_parts :]).as_posix())


@dataclass(frozen=True)
class Folders:
    """A folder of images and one of labels with the same stems.

    Attributes:
        images, labels: folders below the dataset's folder; subfolders are searched too.
        image_suffix, label_suffix: ends of the file names, e.g. ``_leftImg8bit.png``.
        stems: a list file of stems; "" takes every image.
        numbers: keep stems that end in a number from the first up to but without the second,
            for datasets whose splits are told by number.
    """

    images: str
    labels: str
    image_suffix: str = ".jpg"
    label_suffix: str = ".png"
    stems: str = ""
    numbers: tuple[int, int] | None = None

    def records(
        self, folder: Path, table: ClassTable, report: Report = raise_error
    ) -> list[Record]:
        """One dict per image that has the suffix."""
        images, labels = folder / self.images, folder / self.labels
        if self.stems:
            stems = [inside(line) for line in read_lines(folder / self.stems)]
        else:
            if not images.is_dir():
                raise DatasetError(f"{images}: no such folder")
            found = sorted(images.rglob(f"*{self.image_suffix}"))
            stems = [
                p.relative_to(images).as_posix().removesuffix(self.image_suffix) for p in found
            ]
        if self.numbers is not None:
            stems = [s for s in stems if self.numbers[0] <= _number(s) < self.numbers[1]]
        if not stems:
            raise DatasetError(f"{images}: no file of the split ends in '{self.image_suffix}'")
        return [
            semantic_record(
                images / f"{stem}{self.image_suffix}", labels / f"{stem}{self.label_suffix}"
            )
            for stem in stems
        ]

    def paths(self, folder: Path) -> dict[str, str]:
        """The folders, named as Detectron2 names them."""
        return {"image_root": str(folder / self.images), "sem_seg_root": str(folder / self.labels)}


@dataclass(frozen=True)
class CocoInstances:
    """COCO instances JSON and a folder of images."""

    images: str
    json: str

    def records(
        self, folder: Path, table: ClassTable, report: Report = raise_error
    ) -> list[Record]:
        """One dict per image, with its annotations."""
        return read_instances(folder / self.json, folder / self.images, table.things, report)

    def paths(self, folder: Path) -> dict[str, str]:
        """For Detectron2's COCO evaluators."""
        return {"json_file": str(folder / self.json), "image_root": str(folder / self.images)}


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


def _number(stem: str) -> int:
    """The number at the end of a stem; -1 without one."""
    digits = re.search(r"[0-9]+$", stem)
    return int(digits.group()) if digits else -1


def semantic_record(image: Path, label: Path) -> Record:
    """The dict of one sample of semantic segmentation."""
    return {"file_name": str(image), "sem_seg_file_name": str(label), "image_id": image.stem}
