"""The layout of rasters that do not fit into memory, with labels as rasters or polygons."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from ...io.grids import corners_of, mapped
from ...io.raster_headers import check_header
from ...io.rasters import open_raster
from ...io.vectors import is_vector
from ...io.window_labels import RasterLabels, VectorLabels, WindowLabels
from ...io.window_names import Area, window_name
from ..errors import DatasetError, Report, raise_error
from ..training_window import TrainingWindow
from .class_table import ClassTable
from .layouts import Record
from .raster_split import RasterSplit, tiles

__all__ = ["RasterFiles", "Rasters"]

# Of the corners of two grids, in pixels: the formats round.
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class RasterFiles:
    """Rasters and their labels, by their names below the dataset's folder.

    Attributes:
        rasters: files, or patterns with one ``*`` in the name of the file.
        labels: as many, in the same order, or one vector file for all of them. Where ``*`` stands
            for the same text, raster and label belong together.
    """

    rasters: tuple[str, ...]
    labels: tuple[str, ...]

    def pairs(self, folder: Path) -> list[tuple[Path, Path]]:
        """Each raster with its label.

        Raises:
            DatasetError: a file is missing or has no partner.
        """
        labels = self.labels
        if len(labels) == 1 and is_vector(labels[0]) and "*" not in labels[0]:
            known = _expanded(folder, labels[0])[""]
            found = [path for name in self.rasters for path in _expanded(folder, name).values()]
            return [(path, known) for path in found]
        if len(labels) != len(self.rasters):
            raise DatasetError(
                f"{len(self.rasters)} rasters and {len(labels)} labels: list them in the same "
                "order, or give one vector file for all"
            )
        pairs = []
        for image, label in zip(self.rasters, labels, strict=True):
            if ("*" in image) != ("*" in label):
                raise DatasetError(f"{image} and {label}: one is a pattern, the other is not")
            images, partners = _expanded(folder, image), _expanded(folder, label)
            alone = sorted(images.keys() ^ partners.keys())
            if alone:
                path = images.get(alone[0]) or partners[alone[0]]
                other = label if alone[0] in images else image
                raise DatasetError(f"{path}: nothing that {other} matches belongs to it")
            pairs += [(images[key], partners[key]) for key in sorted(images)]
        return pairs


def _expanded(folder: Path, name: str) -> dict[str, Path]:
    """What ``*`` stands for -> the file; "" for a name without it."""
    path = folder / name
    if "*" not in name:
        if not path.is_file():
            raise DatasetError(f"{path}: no such file")
        return {"": path}
    before, after = path.name.split("*")
    found = {p.name[len(before) : len(p.name) - len(after)]: p for p in path.parent.glob(path.name)}
    if not found:
        raise DatasetError(f"{path}: no file matches this pattern")
    return found


@dataclass(frozen=True)
class Rasters:
    """One part of a dataset of rasters: a record for each window that tiles it.

    Attributes:
        files: rasters and labels.
        split: parts every raster; None: they belong to this part as a whole.
        validates: whether this part is the one that validates.
        window: longest side of a window, in pixels.
        class_balanced: see `TrainingWindow`.
        outside: of labels from polygons: name of the class of pixels in none of them, or
            ``ignore``; "" if no label is one of polygons.
        class_property: of their features.
    """

    files: RasterFiles
    split: RasterSplit | None
    validates: bool
    window: int = 512
    class_balanced: bool = False
    outside: str = ""
    class_property: str = "class"

    def records(
        self, folder: Path, table: ClassTable, report: Report = raise_error
    ) -> list[Record]:
        """The windows, raster by raster and row by row; reads headers alone.

        Raises:
            DatasetError: files are missing, unreadable, or lie on different grids.
        """
        return [
            record
            for image, label in self.files.pairs(folder)
            for record in self._windows(image, label, table, os.path.relpath(image, folder))
        ]

    def paths(self, folder: Path) -> dict[str, str]:
        """Nothing beyond the records."""
        return {}

    def _windows(self, image: Path, label: Path, table: ClassTable, name: str) -> list[Record]:
        """`name`: of the image below the dataset's folder."""
        with open_raster(image) as raster:
            check_header(raster)
            width, height = raster.width, raster.height
            if not is_vector(str(label)):
                _check_grid(raster, label)
            encoding = self._encoding(raster, label, table)
        if isinstance(encoding, VectorLabels):
            _check_polygons(encoding, label, Area(0, 0, width, height))
        records = []
        for area in self._areas(image, width, height):
            for tile in tiles(area, self.window):
                record: Record = {
                    "file_name": window_name(str(image), tile),
                    "sem_seg_file_name": window_name(str(label), tile),
                    "image_id": f"{Path(name).with_suffix('').as_posix()}_{tile.x}_{tile.y}",
                    "height": tile.height,
                    "width": tile.width,
                    "sem_seg_encoding": encoding,
                }
                if not self.validates:
                    record["training_window"] = TrainingWindow(
                        area, tile, self.window, self.class_balanced
                    )
                records.append(record)
        return records

    def _areas(self, image: Path, width: int, height: int) -> list[Area]:
        if self.split is None:
            return [Area(0, 0, width, height)]
        try:
            return self.split.areas(width, height)[self.validates]
        except DatasetError as error:
            raise DatasetError(f"{image}: {error}") from None

    def _encoding(self, image: Any, label: Path, table: ClassTable) -> WindowLabels:
        known = table.encoding()
        shared: dict[str, Any] = {f.name: getattr(known, f.name) for f in fields(known)}
        shared["image"] = image.name
        if not is_vector(str(label)):
            return RasterLabels(**shared)
        if not self.outside:
            raise DatasetError(
                f"{label}: outside is missing: the name of the class of pixels in no polygon, or "
                "'ignore'"
            )
        ids = dict(zip(table.names, range(len(table.names)), strict=True))
        ids.setdefault("ignore", table.ignore_label)
        if self.outside not in ids:
            raise DatasetError(
                f"outside is {self.outside!r}; it should be ignore or one of "
                f"{', '.join(table.names)}"
            )
        return VectorLabels(
            **shared,
            names=tuple(table.names),
            class_property=self.class_property,
            outside=ids[self.outside],
            crs=image.crs.to_wkt() if image.crs else "",
            transform=tuple(image.transform)[:6],
        )


def _check_polygons(encoding: VectorLabels, label: Path, whole: Area) -> None:
    """Raise DatasetError where polygons cannot be read, or none lies on the raster."""
    try:
        features, _ = encoding.features(str(label))
    except DatasetError as error:
        raise DatasetError(f"{encoding.image}: {error}") from None
    if not features.touching(corners_of(whole, encoding.transform)):
        raise DatasetError(
            f"{label}: none of its {len(features.geometries)} polygons lies on the raster "
            f"{encoding.image}: do their coordinate systems agree?"
        )


def _check_grid(image: Any, label_path: Path) -> None:
    """Raise DatasetError where a label raster has another grid than its image."""
    with open_raster(label_path) as label:
        check_header(label)
        problem = ""
        size, other = (image.width, image.height), (label.width, label.height)
        if size != other:
            problem = f"{other[0]}x{other[1]} pixels (width x height), not {size[0]}x{size[1]}"
        elif label.count != 1:
            problem = f"{label.count} bands where one band of class ids is expected"
        elif not _same_place(image, label):
            problem = (
                f"another place on Earth: its transform is {tuple(label.transform)[:6]}, not "
                f"{tuple(image.transform)[:6]}"
            )
        elif image.crs and label.crs and image.crs != label.crs:
            problem = f"another coordinate system: {label.crs}, not {image.crs}"
        elif bool(image.crs) != bool(label.crs):
            which = "the raster" if label.crs else "the label"
            problem = f"a coordinate system in one of both alone: {which} has none"
    if problem:
        raise DatasetError(
            f"{label_path}: the label of {image.name} has {problem}; bring it onto the same grid "
            f"(rio warp {label_path.name} aligned.tif --like {Path(image.name).name})"
        )


def _same_place(image: Any, label: Any) -> bool:
    """Whether the corners of both grids are the same, but for rounding."""
    whole = Area(0, 0, image.width, image.height)
    to_pixels = ~image.transform
    own, other = (mapped(to_pixels, corners_of(whole, r.transform)) for r in (image, label))
    return bool(np.abs(own - other).max() <= _TOLERANCE)
