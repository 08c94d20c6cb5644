"""Layouts on disk of images with label images, read into Detectron2's dicts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from ..errors import DatasetError, Report, raise_error
from .class_table import ClassTable
from .files import inside, missing, read_lines
from .pairing import Side, find_pairs, listed_pairs

__all__ = ["AirSimRecordings", "FileList", "Folders", "Layout", "Record", "semantic_record"]

Record = dict[str, Any]

_AIRSIM_NAME = re.compile(r"img_(?P<camera>[^/\\\\]*)_(?P<type>[0-9]+)_[0-9]+\.png")
_SCENE, _SEGMENTATION = "0", "5"


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
        records, source = [], folder / self.list_file
        lines = read_lines(source)
        if not lines:
            raise missing(source, "the list is empty")
        for number, line in enumerate(lines, 1):
            names = line.split()
            try:
                if len(names) != 2:
                    raise DatasetError(f"expected 'image label', got {line!r}")
                image, label = (folder / self._kept(name) for name in names)
                for path in (image, label):
                    if not path.is_file():
                        raise DatasetError(f"{path}: no such file")
            except DatasetError as error:
                report(DatasetError(f"{source}, line {number}: {error}"))
                continue
            records.append(semantic_record(image, label))
        return records

    def paths(self, folder: Path) -> dict[str, str]:
        """Nothing beyond the records."""
        return {}

    def _kept(self, name: str) -> str:
        parts = PurePosixPath(name.replace("\\", "/")).parts
        return inside(PurePosixPath(*parts[-self.keep_parts :]).as_posix())


@dataclass(frozen=True)
class Folders:
    """A folder of images and one of labels with the same names but for their ends.

    Every image needs a label and every label an image; see `find_pairs`.

    Attributes:
        images, labels: folders below the dataset's folder; subfolders are searched too.
        image_suffix, label_suffix: ends of the file names, e.g. ``_leftImg8bit.png``; "" takes
            every picture.
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
        """One dict per image; what has no partner is reported."""
        images = Side(folder / self.images, self.image_suffix, "image_suffix")
        labels = Side(folder / self.labels, self.label_suffix, "mask_suffix")
        if self.stems:
            source = folder / self.stems
            stems = [inside(line) for line in read_lines(source)]
            if not stems:
                raise missing(source, "the list is empty")
            pairs = listed_pairs(images, labels, stems, source, report)
        else:
            pairs = find_pairs(images, labels, report, self._chosen)
        return [semantic_record(image, label) for image, label in pairs]

    def paths(self, folder: Path) -> dict[str, str]:
        """The folders, named as Detectron2 names them."""
        return {"image_root": str(folder / self.images), "sem_seg_root": str(folder / self.labels)}

    def _chosen(self, stem: str) -> bool:
        return self.numbers is None or self.numbers[0] <= _number(stem) < self.numbers[1]


@dataclass(frozen=True)
class AirSimRecordings:
    """Recordings of the AirSim simulator: images and segmentations named by ``airsim_rec.txt``.

    The column ImageFile names what was taken at one moment, separated by semicolons:
    ``img_CAMERA_TYPE_TIME.png``, where type 0 is the scene and 5 the segmentation.

    Attributes:
        folder: is searched for recordings, below the dataset's folder.
    """

    folder: str = "."

    def records(
        self, folder: Path, table: ClassTable, report: Report = raise_error
    ) -> list[Record]:
        """One dict per camera and moment with both pictures."""
        logs = sorted((folder / self.folder).rglob("airsim_rec.txt"))
        if not logs:
            raise missing(folder / self.folder, "no recording (airsim_rec.txt)")
        return [record for log in logs for record in self._recording(log, report)]

    def paths(self, folder: Path) -> dict[str, str]:
        """Nothing beyond the records."""
        return {}

    def _recording(self, log: Path, report: Report) -> list[Record]:
        header, *lines = read_lines(log) or [""]
        columns = header.split("\t")
        if "ImageFile" not in columns:
            raise DatasetError(f"{log}: no column ImageFile")
        place = columns.index("ImageFile")
        records = []
        for number, line in enumerate(lines, 2):
            values = line.split("\t")
            names = values[place].split(";") if place < len(values) else []
            found = [m for m in map(_AIRSIM_NAME.fullmatch, names) if m]
            files = {(m["camera"], m["type"]): log.parent / "images" / m[0] for m in found}
            cameras = [camera for camera, kind in files if kind == _SEGMENTATION]
            pairs = [
                (files[c, _SCENE], files[c, _SEGMENTATION]) for c in cameras if (c, _SCENE) in files
            ]
            records += [semantic_record(image, label) for image, label in pairs]
            alone = [camera for camera in cameras if (camera, _SCENE) not in files]
            if not pairs or alone:
                of = f" of camera {alone[0]}" if pairs else ""
                report(DatasetError(f"{log}, line {number}: no scene with its segmentation{of}"))
        return records


def _number(stem: str) -> int:
    """The number at the end of a stem; -1 without one."""
    digits = re.search(r"[0-9]+$", stem)
    return int(digits.group()) if digits else -1


def semantic_record(image: Path, label: Path) -> Record:
    """The dict of one sample of semantic segmentation."""
    return {"file_name": str(image), "sem_seg_file_name": str(label), "image_id": image.stem}
