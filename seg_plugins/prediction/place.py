"""Where the pixels of a file lie on Earth or under a microscope, and how large they are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ..io.errors import DatasetError
from ..io.file_kind import kind_of
from ..io.rasters import has_rasterio, open_raster

_DESCRIPTION, _X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 270, 282, 283, 296
_CENTIMETRE = 3
# ImageJ's spellings of a micrometre.
_MICROMETRE = ("micron", "microns", "um", "\\u00B5m", "µm", "μm")


@dataclass(frozen=True)
class Place:
    """What a file says of its pixels.

    Attributes:
        transform: from (column, row) to map units, an ``affine.Affine``; None: no place.
        crs: rasterio's coordinate system; None: none is named.
        size: width and height of a pixel in `unit`; None: not known.
        unit: e.g. "um" or "metre".
    """

    transform: Any = None
    crs: Any = None
    size: tuple[float, float] | None = None
    unit: str = ""


def place_of(path: Path | None) -> Place:
    """The place that a TIFF states; of other files, and without a file, an empty one.

    Sizes are those of a projected coordinate system, of ImageJ, or of a resolution per centimetre.
    A resolution per inch is one for printing, and not taken.
    """
    if path is None or not path.is_file() or kind_of(str(path)) != "tiff":
        return Place()
    if has_rasterio():
        try:
            with open_raster(path) as raster:
                transform, crs = raster.transform, raster.crs
        except DatasetError:  # a TIFF that GDAL cannot open lies nowhere
            return _measured(path)
        if not transform.is_identity:
            if crs is None or not crs.is_projected or transform.b or transform.d:
                return Place(transform, crs)
            size = abs(transform.a), abs(transform.e)
            return Place(transform, crs, size, crs.linear_units)
    return _measured(path)


def _measured(path: Path) -> Place:
    """A size without a place."""
    try:
        with Image.open(path) as image:
            tags = getattr(image, "tag_v2", {})
            across, down = tags.get(_X_RESOLUTION), tags.get(_Y_RESOLUTION)
            description, unit = str(tags.get(_DESCRIPTION, "")), tags.get(_RESOLUTION_UNIT)
    except (OSError, Image.DecompressionBombError):  # more bands, or pixels, than Pillow takes
        return Place()
    if not across or not down:
        return Place()
    size = 1 / float(across), 1 / float(down)
    named = re.search(r"^unit=(.+?)\s*$", description, re.MULTILINE)
    if description.startswith("ImageJ=") and named:
        text = named[1]
        return Place(size=size, unit="um" if text in _MICROMETRE else text)
    return Place(size=size, unit="cm") if unit == _CENTIMETRE else Place()
