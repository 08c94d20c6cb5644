"""TIFF and GeoTIFF of any size: read, predicted and written by windows, in place on Earth."""

from __future__ import annotations

import contextlib
import importlib.util
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from ..data import DatasetError
from ..visualization import overlays
from .gaps import count_unknown, filled, no_data, undeclared
from .inputs import Picture
from .labels import Labels
from .outputs import OutputOptions, output_path, require, whole_file
from .prediction import class_ids, id_type
from .predictor import Predictor
from .windows import WindowGrid, blend_windows

KINDS = ("overlay", "mask", "color")
# Pictures that values other than 8 bits are stretched by have this longer side.
_PREVIEW = 512
# Values that are searched for NaN at once.
_CHECKED = 1 << 22


def has_rasterio() -> bool:
    """Whether TIFFs can be read by windows here."""
    return importlib.util.find_spec("rasterio") is not None


def raster_size(path: Path) -> int:
    """Pixels of a TIFF, from its header; 0 where rasterio is missing or cannot read it."""
    if not has_rasterio():
        return 0
    try:
        with open_raster(path) as raster:
            return raster.height * raster.width
    except DatasetError:
        return 0


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
        raise ValueError(
            f"{path}: only semantic systems predict by windows; this one finds things, which "
            f"windows would cut in two. {fix}, or take a semantic system"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(open_raster(path))
        _check(source, predictor.preparation.image_format)
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


def rasterio_or_error(path: Path) -> Any:
    """The rasterio package.

    Raises:
        DatasetError: it is not installed.
    """
    if not has_rasterio():
        raise DatasetError(
            f"{path}: TIFF are read and written by windows with rasterio: "
            "pip install seg_plugins[geo]"
        )
    import rasterio

    return rasterio


@contextlib.contextmanager
def open_raster(path: Path) -> Iterator[Any]:
    """A raster to be read by windows, with a bounded cache.

    Raises:
        DatasetError: rasterio is not installed, or cannot read the file, now or later.
    """
    rasterio = rasterio_or_error(path)
    try:
        with rasterio.Env(GDAL_CACHEMAX=64), warnings.catch_warnings():
            # A picture from a microscope lies nowhere on Earth.
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            with rasterio.open(path) as raster:
                yield raster
    except rasterio.errors.RasterioError as error:
        raise DatasetError(f"{path}: not a readable raster ({error})") from None


def read_window(
    raster: Any, span_y: tuple[int, int], span_x: tuple[int, int], image_format: str
) -> np.ndarray:
    """(h, w, C) pixels in the channels of ``INPUT.FORMAT`` raw, L, RGB or (as RGB) BGR.

    Raises:
        DatasetError: colours are wanted of what is no 8-bit picture.
    """
    if image_format != "raw" and raster.dtypes[0] != "uint8":
        raise DatasetError(
            f"{raster.name}: {raster.dtypes[0]} values where INPUT.FORMAT {image_format} takes "
            "8 bits; train with INPUT.FORMAT raw"
        )
    pixels = raster.read(_bands(raster, image_format), window=(span_y, span_x))
    return np.ascontiguousarray(pixels.transpose(1, 2, 0))


def _bands(raster: Any, image_format: str) -> list[int] | None:
    """The bands that a model takes; None for all."""
    if image_format == "raw":
        return None
    return [1, 2, 3] if raster.count >= 3 else [1]


def read_gaps(
    raster: Any, span_y: tuple[int, int], span_x: tuple[int, int], image_format: str
) -> np.ndarray:
    """(h, w) bool: pixels without data, as :func:`.gaps.find_gaps` counts them; masks included."""
    area = (span_y, span_x)
    if not _has_gaps(raster):
        return np.zeros((span_y[1] - span_y[0], span_x[1] - span_x[0]), bool)
    if raster.dtypes[0] == "uint8":
        return raster.dataset_mask(window=area) == 0
    return (raster.read_masks(_bands(raster, image_format), window=area) == 0).any(axis=0)


def _check(raster: Any, image_format: str) -> None:
    """Raise DatasetError where a part would vanish or would spoil the rest."""
    pages = len(raster.subdatasets)
    if pages > 1:
        raise DatasetError(
            f"{raster.name}: {pages} pages where one picture is expected; save each as a file of "
            "its own"
        )
    if not any(kind.startswith("float") for kind in raster.dtypes):
        return
    rows = max(_CHECKED // (raster.width * raster.count), 1)
    unknown, width = 0, (0, raster.width)
    for y in range(0, raster.height, rows):
        span = (y, min(y + rows, raster.height))
        gaps = read_gaps(raster, span, width, image_format)
        unknown += count_unknown(read_window(raster, span, width, image_format), gaps[..., None])
    if unknown:
        raise undeclared(unknown, raster.height * raster.width, raster.nodata, raster.name)


@contextlib.contextmanager
def create_raster(
    path: Path, like: Any, bands: int, dtype: Any, nodata: int | None = None
) -> Iterator[Any]:
    """A tiled, compressed GeoTIFF in the place on Earth of another raster."""
    rasterio = rasterio_or_error(path)
    points, points_crs = like.gcps
    place: dict[str, Any] = {"crs": like.crs or points_crs or None}
    if points:
        place["gcps"] = points
    elif not like.transform.is_identity:
        place["transform"] = like.transform
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=like.height,
        width=like.width,
        count=bands,
        dtype=dtype,
        nodata=nodata,
        tiled=True,
        blockxsize=256,
        blockysize=256,
        compress="deflate",
        bigtiff="if_safer",
        **({"photometric": "RGB"} if bands == 3 else {}),
        **{key: value for key, value in place.items() if value is not None},
    ) as raster:
        if like.rpcs:
            raster.rpcs = like.rpcs
        meaning = like.tags().get("AREA_OR_POINT")
        if meaning:
            raster.update_tags(AREA_OR_POINT=meaning)
        yield raster


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
                    colours = {i: (*label.colour, 255) for i, label in enumerate(labels.stuff)}
                    raster.write_colormap(1, colours)
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


def _has_gaps(source: Any) -> bool:
    """Whether the file says of some pixels that they hold no data."""
    from rasterio.enums import MaskFlags

    return any(MaskFlags.all_valid not in flags for flags in source.mask_flag_enums)


def _block(kind: str, ids: np.ndarray, image: np.ndarray, labels: Labels) -> np.ndarray:
    """(bands, h, w) values of an output."""
    if kind == "mask":
        return ids[None]
    colours = np.array([label.colour for label in labels.stuff], np.uint8)
    opacity = overlays.OPACITY if kind == "overlay" else 1.0
    ground = image if kind == "overlay" else np.zeros_like(image)
    picture = overlays.semantic(ground, ids, colours, labels.ignore_label, opacity=opacity)
    return picture.transpose(2, 0, 1)
