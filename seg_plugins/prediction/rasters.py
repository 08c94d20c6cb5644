"""TIFF and GeoTIFF of any size: read, predicted and written by windows, in place on Earth."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from ..io.files import whole_file
from ..io.gaps import no_data
from ..io.rasters import open_raster
from ..visualization import overlays
from . import object_rasters
from . import runs as mask_runs
from .label_files import label_colors
from .labels import Labels
from .mask_values import mask_values
from .object_files import ObjectFiles, outline_place
from .outputs import SUFFIXES, OutputOptions, class_records, output_path, require
from .pieces import find_pieces
from .place import Place
from .prediction import class_ids, id_type
from .predictor import Predictor
from .raster_files import check_raster, create_raster
from .raster_windows import RasterWindows
from .spool import MapSpool, ObjectSpool
from .windows import WindowGrid, blend_windows

# What a semantic system's raster can give; of its connected pieces, and of those as regions.
KINDS = ("overlay", "mask", "color")
_OF_PIECES = ("objects", "geojson", "geopackage")


def predict_raster(
    predictor: Predictor,
    path: Path,
    folder: Path,
    name: str,
    options: OutputOptions,
    grid: WindowGrid,
) -> dict[str, Any]:
    """Predict a TIFF by windows, at its own resolution, and write GeoTIFFs.

    Args:
        predictor: of any system; objects are put together across windows, see :mod:`.seams`.
        path: the image.
        folder: holds a folder for each kind of output.
        name: of the outputs.
        options: overlay, mask (of semantic systems: pixels without data get the ignore label),
            color, objects, geojson or geopackage (of semantic systems: of the connected pieces);
            json, which stands in the record, where the regions are objects.
        grid: the windows; they are aligned to the network's stride.

    Returns:
        ``height``, ``width``, pixels with ``no_data``, the ``regions`` of the record and the
        ``files``.

    Raises:
        DatasetError: an unreadable file, one of several pages, one with NaN that is not declared
            as nodata, or rasterio is missing.
        ValueError: outputs that cannot be had by windows.
    """
    labels = predictor.labels
    kinds = object_rasters.KINDS
    if not labels.things:
        kinds = (*KINDS, *(("json",) if options.components else ()), *_OF_PIECES)
    require(
        options.save,
        kinds,
        "images predicted by windows",
        "--instances components lets a semantic system give json; leave --window out for images "
        "of up to 50 million pixels",
    )
    folder.mkdir(parents=True, exist_ok=True)
    with open_raster(path) as source:
        check_raster(source, predictor.preparation.image_format)
        windows = RasterWindows(source, predictor.preparation)
        if labels.things:

            def open_output(kind: str, bands: int, dtype: Any) -> Any:
                of_classes = labels if kind == "mask" and labels.stuff else None
                return _output(folder, kind, name, source, bands, dtype, of_classes, options.values)

            regions, gaps = object_rasters.predict_objects(
                predictor, windows, folder, name, options, grid, open_output
            )
        else:
            regions, gaps = _predict_classes(predictor, windows, folder, name, options, grid)
        size = {"height": source.height, "width": source.width}
    files = [
        output_path(folder, kind, name, SUFFIXES.get(kind, ".tif"))
        for kind in options.save
        if kind != "json"
    ]
    return {**size, "no_data": gaps, "regions": regions, "files": files}


def _predict_classes(
    predictor: Predictor,
    windows: RasterWindows,
    folder: Path,
    name: str,
    options: OutputOptions,
    grid: WindowGrid,
) -> tuple[list[dict[str, Any]], int]:
    """Write the outputs of a semantic system; the record's regions, and the pixels without data."""
    labels, source = predictor.labels, windows.source
    # What can be told before hours of windows is told before them.
    if "json" in options.save:
        mask_runs.check_coco_size(source.height, source.width)
    place = outline_place(source, options)
    values = mask_values(labels, options.values)
    with contextlib.ExitStack() as stack:
        writers = {
            kind: stack.enter_context(
                _output(folder, kind, name, source, 1, values.dtype, labels, options.values)
                if kind == "mask"
                else _output(folder, kind, name, source, 3, "uint8")
            )
            for kind in options.save
            if kind in KINDS
        }
        kept: MapSpool | None = None
        if options.components or {*_OF_PIECES} & {*options.save}:
            kept = stack.enter_context(
                MapSpool(folder, source.height, source.width, id_type(labels))
            )
        spans = len(grid.spans(source.height)) * len(grid.spans(source.width))
        bar = stack.enter_context(
            tqdm(total=spans, desc=Path(source.name).name, unit="window", leave=False, disable=None)
        )
        window: dict[str, Any] = {}

        def predict(y0: int, y1: int, x0: int, x1: int) -> torch.Tensor:
            picture, gaps = windows.read((y0, y1), (x0, x1))
            window.update(image=picture.image, gaps=gaps)
            bar.update()
            return predictor.outputs([picture], resize=False)[0]["sem_seg"]

        hidden = labels.clear(options.clear)
        counts = np.zeros(len(labels.stuff), np.int64)
        without = 0
        for y, x, logits in blend_windows(predict, source.height, source.width, grid, folder):
            ids = class_ids(logits, labels)
            height, width = ids.shape
            area = ((y, y + height), (x, x + width))
            gaps = window["gaps"][:height, :width]
            ids[gaps] = labels.ignore_label
            without += int(gaps.sum())
            image = window["image"][:height, :width]
            counts += np.bincount(ids[ids < len(counts)], minlength=len(counts))
            if kept is not None:
                kept.write(ids, y, x)
            for kind, writer in writers.items():
                block = (
                    values(ids)[None]
                    if kind == "mask"
                    else _drawn(kind, ids, image, labels, hidden)
                )
                writer.write(block, window=area)
        if without == source.height * source.width:
            raise no_data(str(source.name))
        regions = class_records(counts, labels)
        if kept is not None:
            pieces = _write_pieces(kept, labels, source, folder, name, options, place)
            regions = pieces if options.components else regions
    return regions, without


def _write_pieces(
    classes: MapSpool,
    labels: Labels,
    source: Any,
    folder: Path,
    name: str,
    options: OutputOptions,
    place: Place,
) -> list[dict[str, Any]]:
    """Write the connected pieces of the classes; as regions of a record, if those are asked for."""
    size = source.height, source.width
    with ObjectSpool(folder) as pieces:
        for found in find_pieces(classes, *size, labels):
            pieces.add(found)
        pieces.sort()
        files = ObjectFiles(pieces, labels, *size)
        if "objects" in options.save:
            dtype = np.min_scalar_type(len(pieces))
            with _output(folder, "objects", name, source, 1, dtype) as raster:
                files.write_numbers(raster)
        files.write_outlines(folder, name, options, place)
        return [*files.records("json" in options.save)] if options.components else []


@contextlib.contextmanager
def _output(
    folder: Path,
    kind: str,
    name: str,
    source: Any,
    bands: int,
    dtype: Any,
    labels: Labels | None = None,
    values: str = "class",
) -> Iterator[Any]:
    """A file that is there as a whole or not at all; `labels`: of a mask of classes."""
    nodata = None if labels is None else mask_values(labels, values).nodata
    with (
        whole_file(output_path(folder, kind, name, ".tif")) as temporary,
        create_raster(temporary, source, bands, dtype, nodata) as raster,
    ):
        # Programs that show it then do so in the classes' colours.
        if labels is not None and raster.dtypes[0] == "uint8":
            colors = label_colors(labels, values)
            raster.write_colormap(1, {value: (*color, 255) for value, color in colors.items()})
        yield raster


def _drawn(
    kind: str, ids: np.ndarray, image: np.ndarray, labels: Labels, hidden: frozenset[str]
) -> np.ndarray:
    """(3, h, w) colours of an output: over the image without the classes in `hidden`, or alone."""
    colors = np.array([label.color for label in labels.stuff], np.uint8)
    over = kind == "overlay"
    picture = overlays.semantic(
        image if over else np.zeros_like(image),
        labels.without(ids, hidden) if over else ids,
        colors,
        labels.ignore_label,
        opacity=overlays.OPACITY if over else 1.0,
    )
    return picture.transpose(2, 0, 1)
