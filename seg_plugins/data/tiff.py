"""TIFF with more bands than Pillow reads, or with float colours: satellite images."""

from __future__ import annotations

import importlib.util
import struct
import zlib

import numpy as np

from .errors import DatasetError

__all__ = ["read_tiff"]

# Deflate cannot pack more tightly than this; a small file can claim gigabytes.
_MAX_RATIO = 1100
# What tifffile lets through from files whose tags contradict each other.
_DAMAGE = (OSError, LookupError, ValueError, TypeError, ArithmeticError, struct.error, zlib.error)


def read_tiff(file_name: str, max_pixels: int) -> np.ndarray:
    """Read the first picture of a TIFF with all its bands.

    Args:
        file_name: of an existing file.
        max_pixels: bound of height times width, checked before the pixels are read.

    Returns:
        (H, W, C) values as stored, in the machine's byte order.

    Raises:
        DatasetError: tifffile is not installed, or the file is damaged, too large or holds
            something else than one picture.
    """
    if importlib.util.find_spec("tifffile") is None:
        raise DatasetError(
            f"{file_name}: not a readable image; if it is a TIFF with many bands or float "
            "colours, install tifffile: pip install seg_plugins[geo]"
        )
    import tifffile

    try:
        with tifffile.TiffFile(file_name) as file:
            page = file.pages.first
            axes, sizes = page.axes, page.shape
            if axes not in ("YX", "YXS", "SYX"):
                raise DatasetError(f"{file_name}: axes {axes} where one picture is expected")
            height, width = sizes[axes.index("Y")], sizes[axes.index("X")]
            if height * width > max_pixels:
                raise DatasetError(
                    f"{file_name}: {width}x{height} pixels are more than the limit of {max_pixels}"
                )
            if page.nbytes > _MAX_RATIO * file.filehandle.size:
                raise DatasetError(f"{file_name}: {page.nbytes} bytes of pixels in so small a file")
            pixels = page.asarray()
            if pixels.shape != sizes:
                raise ValueError(f"{pixels.shape} values where {sizes} are expected")
    except DatasetError:
        raise
    except _DAMAGE as error:
        raise DatasetError(f"{file_name}: not a readable TIFF ({error})") from None
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    if axes == "SYX":
        pixels = np.moveaxis(pixels, 0, 2)
    return pixels[:, :, None] if axes == "YX" else pixels
