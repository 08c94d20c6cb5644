"""Label images as TIFF, in as many pages as their images have, with what these say of their place.

Deflate, by strips: ImageJ opens no TIFF in tiles. Where the image lies on Earth the label is tiled,
as map programs like it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .errors import DatasetError
from .file_kind import kind_of
from .files import whole_file

__all__ = ["LabelTiff", "has_tifffile", "imagej_description"]

_DESCRIPTION, _ORIENTATION, _X_RESOLUTION, _Y_RESOLUTION, _UNIT = 270, 274, 282, 283, 296
_NODATA = 42113
# Pixel scale, tie points, transform, the keys of GeoTIFF and their values, rational polynomials.
_PLACE = (33550, 33922, 34264, 34735, 34736, 34737, 50844)
_READ = (*_PLACE, _DESCRIPTION, _ORIENTATION, _X_RESOLUTION, _Y_RESOLUTION, _UNIT)
_TILE = (256, 256)
# Of the image's values, not of the label's.
_DISPLAY = ("min=", "max=", "mode=")
_COUNTS = ("images=", "channels=", "slices=", "frames=", "hyperstack=")
# Beyond it offsets need 64 bits.
_CLASSIC = (1 << 32) - (1 << 25)


def has_tifffile() -> bool:
    """Whether labels can be written as TIFF here."""
    return importlib.util.find_spec("tifffile") is not None


def imagej_description(text: str, pages: int) -> str:
    """ImageJ's description of a label: unit, spacing and times of the image's.

    Args:
        text: of the image.
        pages: of the label. The sizes of the axes are kept where the image has as many.

    Returns:
        "" where the image's is none of ImageJ.
    """
    if not text.startswith("ImageJ="):
        return ""
    lines = [line for line in text.splitlines() if line and not line.startswith(_DISPLAY)]
    if not re.search(rf"^images={pages}$", text, re.MULTILINE):
        lines = [line for line in lines if not line.startswith(_COUNTS)]
        if pages > 1:
            lines[1:1] = [f"images={pages}", f"slices={pages}"]
    return "\n".join(lines) + "\n"


class LabelTiff:
    """Writes the pages of one label file, one after another; see :meth:`open`."""

    def __init__(
        self,
        path: Path,
        like: Path | None,
        pages: int,
        colors: Mapping[int, tuple[int, int, int]] | None,
        nodata: int | None,
    ) -> None:
        self._path, self._pages, self._written = path, pages, 0
        self._writer: Any = None
        self._page: dict[str, Any] = {}
        self._first: dict[str, Any] = {}
        if like is not None and kind_of(str(like)) == "tiff":
            self._take(like)
        self._colors, self._nodata = colors, nodata

    @classmethod
    @contextlib.contextmanager
    def open(
        cls,
        path: Path,
        like: Path | None,
        *,
        pages: int = 1,
        colors: Mapping[int, tuple[int, int, int]] | None = None,
        nodata: int | None = None,
    ) -> Iterator[LabelTiff]:
        """A file that is there as a whole, with all its pages, or not at all.

        Args:
            path: the file.
            like: the image; of a TIFF its resolution, ImageJ's description and its place on Earth
                are kept.
            pages: that will be written.
            colors: (R, G, B) of values, shown by programs where the values have 8 bits.
            nodata: the value that stands for no data.

        Raises:
            DatasetError: the image is a TIFF that cannot be read.
        """
        with whole_file(path) as temporary:
            label = cls(temporary, like, pages, colors, nodata)
            try:
                yield label
            finally:
                if label._writer is not None:
                    label._writer.close()
            if label._written != pages:
                raise ValueError(f"{path}: {label._written} of {pages} pages")

    def write(self, labels: np.ndarray) -> None:
        """Write the next page, (H, W) uint8, uint16 or uint32."""
        import tifffile

        if self._writer is None:
            big = labels.nbytes * self._pages > _CLASSIC
            self._writer = tifffile.TiffWriter(self._path, bigtiff=big)
        options = {**self._page, "photometric": "minisblack"}
        if self._colors is not None and labels.dtype == np.uint8:
            table = np.zeros((3, 256), np.uint16)
            for value, color in self._colors.items():
                table[:, value] = np.array(color) * 257  # from 8 to 16 bits
            options.update(photometric="palette", colormap=table)
        extra = list(options.pop("extratags", ()))
        if self._nodata is not None:
            extra.append((_NODATA, "s", 0, str(self._nodata), True))
        if not self._written:
            options |= self._first
        self._writer.write(
            labels, compression="zlib", metadata=None, software=False, extratags=extra, **options
        )
        self._written += 1

    def _take(self, like: Path) -> None:
        """What the image's first page says of its place and of the size of its pixels."""
        import tifffile

        try:
            with tifffile.TiffFile(like) as file:
                tags = {
                    tag.code: (tag.dtype, tag.count, tag.value)
                    for tag in file.pages.first.tags
                    if tag.code in _READ
                }
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise DatasetError(f"{like}: not a readable TIFF ({error})") from None
        place = [(code, *tags[code], True) for code in _PLACE if code in tags]
        if place:
            self._page.update(extratags=place, tile=_TILE)
        values = {code: value for code, (_, _, value) in tags.items()}
        if _X_RESOLUTION in values and _Y_RESOLUTION in values:
            resolution = values[_X_RESOLUTION], values[_Y_RESOLUTION]
            if int(values.get(_ORIENTATION, 1)) > 4:  # the label is upright
                resolution = resolution[::-1]
            unit = int(values.get(_UNIT, 2))  # inches, the format's default
            self._page.update(resolution=resolution, resolutionunit=unit)
        text = imagej_description(str(values.get(_DESCRIPTION, "")), self._pages)
        if text:
            self._first["description"] = text
