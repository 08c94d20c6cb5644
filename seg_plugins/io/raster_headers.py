"""What the header of a raster tells of it: whether windows show it as it is meant."""

from __future__ import annotations

import warnings
from typing import Any

from PIL import Image

from .errors import DatasetError
from .images import stored_rotated
from .tiff import picture_pages, several_pages

__all__ = ["check_header"]


def check_header(raster: Any, otherwise: str = "") -> None:
    """Check that windows show what the whole image would.

    Args:
        raster: open, of rasterio.
        otherwise: what else helps, as the end of a sentence.

    Raises:
        DatasetError: several pages, an EXIF rotation, or colours of print.
    """
    is_tiff = raster.driver in ("GTiff", "COG")
    pages = len(picture_pages(raster.name)) if is_tiff else 1
    if pages > 1:
        raise several_pages(raster.name, pages)
    if is_tiff and _rotated(raster.name):
        raise DatasetError(
            f"{raster.name}: an EXIF tag rotates it for display; windows show the stored rows: "
            f"store it upright{otherwise}"
        )
    if raster.tags(ns="IMAGE_STRUCTURE").get("SOURCE_COLOR_SPACE") == "CMYK":
        raise DatasetError(
            f"{raster.name}: colours of print (CMYK), which are converted otherwise by windows: "
            f"store it in RGB{otherwise}"
        )


def _rotated(name: str) -> bool:
    with warnings.catch_warnings():
        # Its size is what windows are for.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return stored_rotated(name)
