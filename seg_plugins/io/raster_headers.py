"""What the header of a raster tells of it: whether windows show it as it is meant."""

from __future__ import annotations

from typing import Any

from .errors import DatasetError
from .file_kind import kind_of
from .images import EXIF_ORIENTATION, max_pixels, page_count, stored_rotated
from .tiff import first_tag, several_pages

__all__ = ["check_header"]

# GDAL's drivers whose files may hold several pictures, or be stored rotated.
_PICTURES = ("GTiff", "JPEG", "PNG", "GIF", "WEBP")


def check_header(raster: Any, otherwise: str = "") -> None:
    """Check that windows show what the whole image would.

    Args:
        raster: open, of rasterio.
        otherwise: what else helps, as the end of a sentence.

    Raises:
        DatasetError: several pages, an EXIF rotation, or colours of print.
    """
    is_picture = raster.driver in _PICTURES
    pages = page_count(raster.name) if is_picture else 1
    if pages > 1:
        raise several_pages(raster.name, pages)
    if is_picture and _rotated(raster):
        raise DatasetError(
            f"{raster.name}: an EXIF tag rotates it for display; windows show the stored rows: "
            f"store it upright{otherwise}"
        )
    if raster.tags(ns="IMAGE_STRUCTURE").get("SOURCE_COLOR_SPACE") == "CMYK":
        raise DatasetError(
            f"{raster.name}: colours of print (CMYK), which are converted otherwise by windows: "
            f"store it in RGB{otherwise}"
        )


def _rotated(raster: Any) -> bool:
    """GDAL does not tell the orientation of a TIFF, and Pillow opens no image that is larger."""
    if raster.height * raster.width <= max_pixels():
        return stored_rotated(raster.name)
    if kind_of(raster.name) == "tiff":
        return first_tag(raster.name, EXIF_ORIENTATION) not in (None, 1)
    return raster.tags(ns="EXIF").get("EXIF_Orientation", "1").strip() != "1"
