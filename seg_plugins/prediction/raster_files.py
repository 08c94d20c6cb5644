"""Rasters as files: checked before prediction, and created in the same place on Earth."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..io.gaps import count_unknown, undeclared
from ..io.label_tiff import imagej_description
from ..io.raster_headers import check_header
from ..io.rasters import open_anywhere, rasterio_or_error, read_gaps, read_window

# GDAL's names of what is kept beside the place on Earth: ImageJ's description has its unit.
_DESCRIPTION = "TIFFTAG_IMAGEDESCRIPTION"
_KEPT = (
    "AREA_OR_POINT", "TIFFTAG_XRESOLUTION", "TIFFTAG_YRESOLUTION", "TIFFTAG_RESOLUTIONUNIT",
)  # fmt: skip
# Values that are searched for NaN at once.
_CHECKED = 1 << 22


def check_raster(raster: Any, image_format: str) -> None:
    """Raise DatasetError where a part would vanish or would spoil the rest."""
    check_header(raster, ", or leave --window out")
    if not any(kind.startswith("float") for kind in raster.dtypes):
        return
    rows = max(_CHECKED // (raster.width * raster.count), 1)
    unknown, width = 0, (0, raster.width)
    for y in range(0, raster.height, rows):
        span = (y, min(y + rows, raster.height))
        gaps = read_gaps(raster, span, width, image_format)
        unknown += count_unknown(read_window(raster, span, width, image_format), gaps[..., None])
    if unknown:
        raise undeclared(unknown, raster.height * raster.width, raster.nodata, raster.name)


@contextlib.contextmanager
def create_raster(
    path: Path, like: Any, bands: int, dtype: Any, nodata: int | None = None
) -> Iterator[Any]:
    """A tiled, compressed GeoTIFF in the place on Earth of another raster."""
    rasterio_or_error(path)
    points, points_crs = like.gcps
    place: dict[str, Any] = {"crs": like.crs or points_crs or None}
    if points:
        place["gcps"] = points
    elif not like.transform.is_identity:
        place["transform"] = like.transform
    with open_anywhere(
        path,
        "w",
        driver="GTiff",
        height=like.height,
        width=like.width,
        count=bands,
        dtype=dtype,
        nodata=nodata,
        tiled=True,
        blockxsize=256,
        blockysize=256,
        compress="deflate",
        bigtiff="if_safer",
        **({"photometric": "RGB"} if bands == 3 else {}),
        **{key: value for key, value in place.items() if value is not None},
    ) as raster:
        if like.rpcs:
            raster.rpcs = like.rpcs
        tags = like.tags()
        kept = {key: tags[key] for key in _KEPT if key in tags}
        description = imagej_description(tags.get(_DESCRIPTION, ""), 1)
        raster.update_tags(**kept, **({_DESCRIPTION: description} if description else {}))
        yield raster
