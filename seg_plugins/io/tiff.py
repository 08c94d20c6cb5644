"""TIFF with more bands than Pillow reads, or with float colours: satellite images."""

from __future__ import annotations

import importlib.util
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

from .errors import DatasetError
from .file_kind import kind_of

__all__ = [
    "declared_nodata",
    "first_tag",
    "nodata_of",
    "picture_pages",
    "read_tiff",
    "several_pages",
]

_GDAL_NODATA = 42113
_SUBFILE_TYPE = 254
# Bits of that tag: a smaller copy of another picture, or its mask.
_NOT_A_PAGE = 1 | 4

# Deflate cannot pack more tightly than this; a small file can claim gigabytes.
_MAX_RATIO = 1100
# What tifffile lets through from files whose tags contradict each other.
_DAMAGE = (OSError, LookupError, ValueError, TypeError, ArithmeticError, struct.error, zlib.error)


def read_tiff(file_name: str, max_pixels: int, place: int = 0) -> np.ndarray:
    """Read one picture of a TIFF with all its bands.

    Args:
        file_name: of an existing file.
        max_pixels: bound of height times width, checked before the pixels are read.
        place: of the picture in the file's chain.

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
            page = file.pages[place] if place else file.pages.first
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


def declared_nodata(file_name: str) -> float | None:
    """The value that a TIFF declares for pixels without data (GDAL's tag); None: no such value.

    Raises:
        DatasetError: the tag holds no number.
    """
    if kind_of(file_name) != "tiff":
        return None
    try:
        with Image.open(file_name) as image:
            return nodata_of(image)
    except (OSError, SyntaxError):
        return _number(first_tag(file_name, _GDAL_NODATA), file_name)


def nodata_of(image: Image.Image) -> float | None:
    """The same of an image that Pillow has opened."""
    tag = getattr(image, "tag_v2", {}).get(_GDAL_NODATA)
    return _number(tag, str(getattr(image, "filename", "Pillow's image")))


def _number(tag: object, name: str) -> float | None:
    try:
        return None if tag is None else float(str(tag).strip(" \0"))
    except ValueError:
        raise DatasetError(f"{name}: nodata is declared as {tag!r}, no number") from None


def first_tag(file_name: str, number: int) -> Any:
    """A tag of the first page of a TIFF that Pillow does not know; None: it has no such tag."""
    if importlib.util.find_spec("tifffile") is None:
        return None  # nor can its pixels be read: that is told when they are
    import tifffile

    try:
        with tifffile.TiffFile(file_name) as file:
            tag = file.pages.first.tags.get(number)
            return None if tag is None else tag.value
    except _DAMAGE as error:
        raise DatasetError(f"{file_name}: not a readable TIFF ({error})") from None


def picture_pages(file_name: str) -> list[int]:
    """Places in a TIFF's chain of its pictures; smaller copies and masks of GeoTIFF are none.

    A damaged chain of pages is followed up to the damage: reading tells what is wrong.
    """
    pages: list[int] = []
    seen = {0}
    with open(file_name, "rb") as file:
        start = file.read(16)
        order = "<" if start[:2] == b"II" else ">"
        # BigTIFF has wider offsets.
        wide = start[2:4] in (b"+\0", b"\0+")
        offset, entries, width = ("Q", "Q", 20) if wide else ("I", "H", 12)
        try:
            (place,) = struct.unpack_from(order + offset, start, 8 if wide else 4)
            while place not in seen:
                number = len(seen) - 1
                seen.add(place)
                file.seek(place)
                (count,) = struct.unpack(order + entries, file.read(struct.calcsize(entries)))
                tags = file.read(min(count, 1 << 16) * width)
                if not _subfile_type(tags, order, width) & _NOT_A_PAGE:
                    pages.append(number)
                (place,) = struct.unpack(order + offset, file.read(struct.calcsize(offset)))
        except (struct.error, OSError, OverflowError):
            pass
    return pages


def _subfile_type(tags: bytes, order: str, width: int) -> int:
    for start in range(0, len(tags) - width + 1, width):
        if struct.unpack_from(order + "H", tags, start)[0] == _SUBFILE_TYPE:
            return struct.unpack_from(order + "I", tags, start + (8 if width == 12 else 12))[0]
    return 0


def several_pages(file_name: str, pages: int) -> DatasetError:
    """The error for a file of which only one page would be read, to be raised."""
    return DatasetError(
        f"{file_name}: {pages} pages where one picture is expected; predict.py takes --pages all; "
        "for training save each as a file of its own, or all as the channels of one .npy file of "
        "(H, W, C)"
    )
