"""Rasters that do not fit into memory: opened, and read by windows with rasterio."""

from __future__ import annotations

import contextlib
import importlib.util
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .errors import DatasetError

__all__ = [
    "has_rasterio",
    "open_anywhere",
    "open_raster",
    "raster_size",
    "rasterio_or_error",
    "read_gaps",
    "read_window",
]

# Filters of warnings belong to the process.
_WARNINGS = threading.Lock()


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
        with rasterio.Env(GDAL_CACHEMAX=64), open_anywhere(path) as raster:
            yield raster
    except rasterio.errors.RasterioError as error:
        raise DatasetError(f"{path}: not a readable raster ({error})") from None


def open_anywhere(path: Path, *arguments: Any, **options: Any) -> Any:
    """``rasterio.open`` without a warning: a picture from a microscope lies nowhere on Earth."""
    import rasterio

    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        return rasterio.open(path, *arguments, **options)


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
    if raster.dtypes[0] == "uint8" and raster.colorinterp[0].name == "palette":
        pixels = _shown(raster, pixels, image_format)
    return np.ascontiguousarray(pixels.transpose(1, 2, 0))


def _shown(raster: Any, pixels: np.ndarray, image_format: str) -> np.ndarray:
    """The colours of a palette, which GDAL has for black and white, and for white as 0, as well."""
    if image_format != "raw":
        table = np.zeros((256, 3), np.uint8)
        for value, color in raster.colormap(1).items():
            table[value] = color[:3]
        return table[pixels[0]].transpose(2, 0, 1)
    if raster.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES":
        bits = int(raster.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", 8))
        return (1 << bits) - 1 - pixels
    return pixels


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


def _has_gaps(source: Any) -> bool:
    """Whether the file says of some pixels that they hold no data."""
    from rasterio.enums import MaskFlags

    return any(MaskFlags.all_valid not in flags for flags in source.mask_flag_enums)
