"""The objects of a raster of any size as records, outlines and numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..io.files import write_atomically
from . import runs as mask_runs
from .labels import Labels
from .outputs import OutputOptions, output_path
from .place import Place, place_of
from .seams import Box
from .spool import ObjectSpool
from .vectors import feature, geojson, outline, write_geopackage

# Outputs are written in tiles: a row of blocks of the file, and not wider than this.
_TILE = 256, 4096


def outline_place(source: Any, options: OutputOptions) -> Place:
    """Where a raster lies, if outlines are asked for: what is wrong with it is told at once."""
    outlined = {"geojson", "geopackage"} & {*options.save}
    return place_of(Path(source.name)) if outlined else Place()


class ObjectFiles:
    """Writes what was found.

    Args:
        objects: sorted; a class is a place in `labels.all`.
        labels: of the model. Pieces of a system that finds no things have no score.
        height: of the raster.
        width: of the raster.
    """

    def __init__(self, objects: ObjectSpool, labels: Labels, height: int, width: int) -> None:
        self.objects, self.labels, self.size = objects, labels, (height, width)

    def write_outlines(self, folder: Path, name: str, options: OutputOptions, place: Place) -> None:
        """Write GeoJSON and GeoPackage where they are asked for."""
        if "geojson" in options.save:
            path = output_path(folder, "geojson", name, ".geojson")
            path.parent.mkdir(parents=True, exist_ok=True)

            def write(file: Any) -> None:
                for piece in geojson(self._features(place), place):
                    file.write(piece)

            write_atomically(path, write)
        if "geopackage" in options.save:
            path = output_path(folder, "geopackage", name, ".gpkg")
            write_geopackage(path, self._features(place), place)

    def write_numbers(self, raster: Any) -> None:
        """Write the objects' numbers, 1, 2, ... in their order, to the first band of a raster."""
        for box in tiles(*self.size):
            y0, x0, y1, x1 = box
            numbers = self.objects.labels(box)
            raster.write(numbers[None].astype(raster.dtypes[0]), window=((y0, y1), (x0, x1)))

    def records(self, with_masks: bool) -> Iterator[dict[str, Any]]:
        """The objects as a record has them."""
        for number, found in enumerate(self.objects, 1):
            label = self.labels.all[found.class_id]
            y0, x0, y1, x1 = mask_runs.bounds(found.runs)
            record = {
                "class": label.name,
                "category_id": label.category_id,
                "isthing": bool(self.labels.things) or label.is_thing,
                "area": mask_runs.area(found.runs),
                "bbox": [float(x0), float(y0), float(x1 - x0), float(y1 - y0)],
                "id": number,
            }
            if self.labels.things:
                record["score"] = round(found.score, 6)
            if with_masks:
                record["segmentation"] = mask_runs.to_coco(found.runs, *self.size)
            yield record

    def _features(self, place: Place) -> Iterator[dict[str, Any]]:
        """The objects as GeoJSON has them."""
        for number, found in enumerate(self.objects, 1):
            y0, x0, y1, x1 = mask_runs.bounds(found.runs)
            mask = np.zeros((y1 - y0, x1 - x0), bool)
            mask_runs.paint(mask, found.runs, y0, x0, 1)
            geometry = outline(mask, (x0, y0), place.transform)
            label = self.labels.all[found.class_id]
            score = found.score if self.labels.things else None
            yield feature(number, label, score, int(mask.sum()), geometry)


def tiles(height: int, width: int) -> Iterator[Box]:
    """The parts in which a raster is written."""
    for y in range(0, height, _TILE[0]):
        for x in range(0, width, _TILE[1]):
            yield y, x, min(y + _TILE[0], height), min(x + _TILE[1], width)
