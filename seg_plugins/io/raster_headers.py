"""What the header of a raster tells of it: whether windows show it as it is meant."""

from __future__ import annotations

from typing import Any

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
    pages = len(picture_pages(raster.name))
    if pages > 1:
        raise several_pages(raster.name, pages)
    if stored_rotated(raster.name):
        raise DatasetError(
            f"{raster.name}: an EXIF tag rotates it for display; windows show the stored rows: "
            f"store it upright{otherwise}"
        )
    if raster.tags(ns="IMAGE_STRUCTURE").get("SOURCE_COLOR_SPACE") == "CMYK":
        raise DatasetError(
            f"{raster.name}: colours of print (CMYK), which are converted otherwise by windows: "
            f"store it in RGB{otherwise}"
        )
