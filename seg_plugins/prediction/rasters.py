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
from .label_files import label_colors
from .labels import Labels
from .mask_values import mask_values
from .outputs import SUFFIXES, OutputOptions, class_records, output_path, require
from .prediction import class_ids
from .predictor import Predictor
from .raster_files import check_raster, create_raster
from .raster_windows import RasterWindows
from .windows import WindowGrid, blend_windows

KINDS = ("overlay", "mask", "color")


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
        options: overlay, mask (of semantic systems: pixels without data get the ignore label) or
            color; of systems that find things json, which stands in the record, objects, geojson
            and geopackage as well.
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
    kinds = object_rasters.KINDS if labels.things else KINDS
    require(
        options.save,
        kinds,
        "images predicted by windows",
        "Leave --window out for images of up to 50 million pixels",
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
            counts, gaps = _predict_classes(predictor, windows, folder, name, options, grid)
            regions = class_records(counts, labels)
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
) -> tuple[np.ndarray, int]:
    """Write the outputs of a semantic system; the (K,) pixels of each class, and those of none."""
    labels, source = predictor.labels, windows.source
    values = mask_values(labels, options.values)
    with contextlib.ExitStack() as stack:
        writers = {
            kind: stack.enter_context(
                _output(folder, kind, name, source, 1, values.dtype, labels, options.values)
                if kind == "mask"
                else _output(folder, kind, name, source, 3, "uint8")
            )
            for kind in options.save
        }
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
            for kind, writer in writers.items():
                block = (
                    values(ids)[None]
                    if kind == "mask"
                    else _drawn(kind, ids, image, labels, hidden)
                )
                writer.write(block, window=area)
        if without == source.height * source.width:
            raise no_data(str(source.name))
    return counts, without


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
