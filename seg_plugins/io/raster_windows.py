"""A window of a raster as an image, and where it has no data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .arrays import as_image
from .errors import DatasetError
from .gaps import filled
from .rasters import open_raster, read_gaps, read_window
from .window_names import Area, window_name

__all__ = ["read_image_window", "window_gaps"]


def read_image_window(file_name: str, area: Area, image_format: str) -> np.ndarray:
    """The pixels of a window; those without data get the mean of the others of the window.

    So they are as inconspicuous as can be told from the file; they have no class, see
    `RasterLabels`.

    Args:
        file_name: of a TIFF, or of another format that rasterio reads by windows.
        area: inside the raster.
        image_format: as in :func:`~seg_plugins.io.images.read_image`, but for the order of BGR,
            which is that of RGB.

    Returns:
        (height, width, C) array; uint8 unless `image_format` is "raw".

    Raises:
        DatasetError: an unreadable file, or a window that reaches over its edge.
    """
    with open_raster(Path(file_name)) as raster:
        check_inside(raster, area)
        pixels = read_window(raster, area.rows, area.columns, image_format)
        gaps = read_gaps(raster, area.rows, area.columns, image_format)
    if gaps.any():
        valid = pixels[~gaps].astype(np.float64)
        pixels = filled(pixels, gaps, valid.mean(axis=0) if len(valid) else [0.0])
    if image_format == "L" and pixels.shape[2] == 3:
        pixels = np.asarray(Image.fromarray(pixels).convert("L"))
    return as_image(window_name(file_name, area), pixels, image_format)


def window_gaps(file_name: str, area: Area) -> np.ndarray:
    """(height, width) bool: pixels that hold no data in any band, or of 8 bits in all bands."""
    with open_raster(Path(file_name)) as raster:
        check_inside(raster, area)
        return read_gaps(raster, area.rows, area.columns, "raw")


def check_inside(raster: Any, area: Area) -> None:
    """Raise DatasetError where a window is not in the raster."""
    if area.rows[1] > raster.height or area.columns[1] > raster.width:
        raise DatasetError(
            f"{window_name(raster.name, area)}: reaches over the raster's {raster.width} columns "
            f"and {raster.height} rows"
        )
