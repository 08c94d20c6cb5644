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
from ..visualization import overlays
from .errors import PredictionError
from .gaps import filled, no_data
from .inputs import Picture
from .labels import Labels
from .outputs import OutputOptions, output_path, require
from .prediction import class_ids, id_type
from .predictor import Predictor
from .raster_files import check_raster, create_raster, open_raster, read_gaps, read_window
from .windows import WindowGrid, blend_windows

KINDS = ("overlay", "mask", "color")
# Pictures that values other than 8 bits are stretched by have this longer side.
_PREVIEW = 512
# Values that are searched for NaN at once.
_CHECKED = 1 << 22


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
        predictor: of a semantic system.
        path: the image.
        folder: holds a folder for each kind of output.
        name: of the outputs.
        options: overlay, mask (pixels without data get the ignore label) or color.
        grid: the windows; they are aligned to the network's stride.

    Returns:
        ``height``, ``width``, (K,) pixels of each class (``counts``) and the ``files``.

    Raises:
        DatasetError: an unreadable file, one of several pages, one with NaN that is not declared
            as nodata, or rasterio is missing.
        ValueError: outputs that cannot be had by windows.
    """
    fix = (
        "Leave --window out for images of up to 50 million pixels; cut larger ones into such "
        "(gdal_retile.py -ps 5000 5000)"
    )
    require(options.save, KINDS, "images predicted by windows", fix)
    labels = predictor.labels
    if labels.things or not labels.stuff:
        raise PredictionError(
            f"{path}: only semantic systems predict by windows; this one finds things, which "
            f"windows would cut in two. {fix}, or take a semantic system"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(open_raster(path))
        check_raster(source, predictor.preparation.image_format)
        writers = {
            kind: stack.enter_context(_output(folder, kind, name, source, labels))
            for kind in options.save
        }
        shown = _Display(source, predictor.preparation.image_format)
        spans = len(grid.spans(source.height)) * len(grid.spans(source.width))
        bar = stack.enter_context(
            tqdm(total=spans, desc=path.name, unit="window", leave=False, disable=None)
        )
        window: dict[str, Any] = {}

        def predict(y0: int, y1: int, x0: int, x1: int) -> torch.Tensor:
            area = ((y0, y1), (x0, x1))
            pixels = read_window(source, *area, predictor.preparation.image_format)
            gaps = read_gaps(source, *area, predictor.preparation.image_format)
            picture = shown(pixels, gaps, predictor)
            window.update(image=picture.image, gaps=gaps)
            bar.update()
            return predictor.outputs([picture], resize=False)[0]["sem_seg"]

        counts = np.zeros(len(labels.stuff), np.int64)
        any_data = False
        for y, x, logits in blend_windows(predict, source.height, source.width, grid, folder):
            ids = class_ids(logits, labels)
            height, width = ids.shape
            area = ((y, y + height), (x, x + width))
            gaps = window["gaps"][:height, :width]
            ids[gaps] = labels.ignore_label
            any_data |= not gaps.all()
            image = window["image"][:height, :width]
            counts += np.bincount(ids[ids < len(counts)], minlength=len(counts))
            for kind, writer in writers.items():
                writer.write(_block(kind, ids, image, labels), window=area)
        if not any_data:
            raise no_data(str(path))
        size = {"height": source.height, "width": source.width}
    files = [output_path(folder, kind, name, ".tif") for kind in options.save]
    return {**size, "counts": counts, "files": files}


@contextlib.contextmanager
def _output(folder: Path, kind: str, name: str, source: Any, labels: Labels) -> Iterator[Any]:
    with whole_file(output_path(folder, kind, name, ".tif")) as temporary:
        if kind != "mask":
            with create_raster(temporary, source, 3, "uint8") as raster:
                yield raster
        else:
            dtype = id_type(labels)
            with create_raster(temporary, source, 1, dtype, labels.ignore_label) as raster:
                if dtype is np.uint8:  # programs that show it then do so in the classes' colours
                    colors = {i: (*label.color, 255) for i, label in enumerate(labels.stuff)}
                    raster.write_colormap(1, colors)
                yield raster


class _Display:
    """Makes pictures of windows, with one range of values for all of them."""

    def __init__(self, source: Any, image_format: str) -> None:
        self.limits: tuple[float, float] | None = None
        if image_format == "raw" and source.dtypes[0] != "uint8":
            scale = max(source.height, source.width) / _PREVIEW
            shape = (max(int(source.height / scale), 1), max(int(source.width / scale), 1))
            values = source.read(out_shape=(source.count, *shape), masked=True)
            values = values.astype(np.float64).compressed()
            if len(values):
                low, high = np.percentile(values, (0.5, 99.5))
                self.limits = float(low), float(high)

    def __call__(self, pixels: np.ndarray, gaps: np.ndarray, predictor: Predictor) -> Picture:
        preparation = predictor.preparation
        if gaps.any():
            is_bgr = preparation.image_format == "BGR"  # of which windows are read as RGB
            pixels = filled(pixels, gaps, preparation.mean[::-1] if is_bgr else preparation.mean)
        if preparation.image_format != "raw":
            return preparation.from_array(pixels)
        shown = pixels
        if self.limits is not None:
            low, high = self.limits
            stretched = (pixels - low) * (255 / max(high - low, 1e-12))
            shown = stretched.clip(0, 255).astype(np.uint8)
        return Picture(overlays.displayable(shown), pixels)


def _block(kind: str, ids: np.ndarray, image: np.ndarray, labels: Labels) -> np.ndarray:
    """(bands, h, w) values of an output."""
    if kind == "mask":
        return ids[None]
    colors = np.array([label.color for label in labels.stuff], np.uint8)
    opacity = overlays.OPACITY if kind == "overlay" else 1.0
    ground = image if kind == "overlay" else np.zeros_like(image)
    picture = overlays.semantic(ground, ids, colors, labels.ignore_label, opacity=opacity)
    return picture.transpose(2, 0, 1)
