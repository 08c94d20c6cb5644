"""Pixels without data: found, filled for the network, and left out of its answer.

What a file declares as its nodata value is such a pixel. NaN and infinity that nobody declared are
errors: a network spreads one of them over all that its receptive field reaches.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .errors import DatasetError
from .file_kind import kind_of


def find_gaps(pixels: np.ndarray, nodata: float | None, name: str) -> np.ndarray | None:
    """Where an image has no data.

    Args:
        pixels: (H, W, C).
        nodata: the value that stands for no data, NaN included; None where none is declared.
        name: of the image, for errors.

    Returns:
        (H, W) bool; None where every pixel has data. A pixel lacks data where any channel does,
        and of 8 bits where all do, as GDAL has it: there the value is a colour as well.

    Raises:
        DatasetError: NaN or infinity that is not declared, or not a pixel with data.
    """
    if nodata is None and pixels.dtype.kind in "biu":
        return None
    declared = _equals(pixels, nodata)
    unknown = count_unknown(pixels, declared)
    if unknown:
        raise undeclared(unknown, pixels.shape[0] * pixels.shape[1], nodata, name)
    gaps = declared.all(axis=2) if pixels.dtype == np.uint8 else declared.any(axis=2)
    if gaps.all():
        raise no_data(name)
    return np.asarray(gaps) if gaps.any() else None


def _equals(pixels: np.ndarray, nodata: float | None) -> np.ndarray:
    if nodata is None:
        return np.zeros(pixels.shape, bool)
    if np.isnan(nodata):
        return np.isnan(pixels)
    if pixels.dtype.kind != "f":
        return pixels == nodata
    with np.errstate(over="ignore"):  # float64's lowest number is infinite in float32
        return pixels == np.asarray(nodata, pixels.dtype)


def count_unknown(pixels: np.ndarray, declared: np.ndarray) -> int:
    """Pixels with NaN or infinity.

    Args:
        pixels: (H, W, C).
        declared: the same or (H, W, 1), bool: values that are known to be missing.
    """
    if pixels.dtype.kind != "f":
        return 0
    with np.errstate(over="ignore"):  # networks see float32
        unknown = ~np.isfinite(pixels.astype(np.float32, copy=False))
    return int((unknown & ~declared).any(axis=2).sum())


def undeclared(count: int, total: int, nodata: float | None, name: str) -> DatasetError:
    """The error for `count` pixels of NaN or infinity, to be raised."""
    what = f"{name}: {count} of {total} pixels are NaN or infinite, and "
    if nodata is not None:
        return DatasetError(f"{what}the value declared for no data is {nodata:g}: store that there")
    if Path(name).is_file() and kind_of(name) == "tiff":
        return DatasetError(
            f"{what}no value is declared for pixels without data: fill them, or declare NaN with "
            f"rio edit-info --nodata nan '{name}' (pip install seg_plugins[geo])"
        )
    return DatasetError(
        f"{what}only a TIFF can declare a value for pixels without data: fill them "
        "(numpy.nan_to_num), or store a GeoTIFF with a nodata value"
    )


def no_data(name: str) -> DatasetError:
    """The error for an image without a pixel of data, to be raised."""
    return DatasetError(f"{name}: not a pixel holds data: all are marked as nodata")


def filled(pixels: np.ndarray, gaps: np.ndarray, mean: Sequence[float]) -> np.ndarray:
    """A copy with the mean colour, which is 0 to the network, in the gaps.

    Args:
        pixels: (H, W, C).
        gaps: (H, W) bool.
        mean: of each channel (``MODEL.PIXEL_MEAN``); another number of them is averaged.
    """
    value = np.asarray(mean if len(mean) == pixels.shape[2] else np.mean(mean), np.float64)
    if pixels.dtype.kind != "f":
        limits = np.iinfo(pixels.dtype)
        value = np.rint(value).clip(limits.min, limits.max)
    copy = pixels.copy()
    copy[gaps] = value.astype(pixels.dtype)
    return copy
