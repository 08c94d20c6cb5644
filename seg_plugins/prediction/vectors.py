"""Outlines of objects for maps (GeoJSON) and for correction by hand (labelme)."""

from __future__ import annotations

import json
from pathlib import PurePath
from typing import Any

import numpy as np

from ..io.masks import to_polygons
from .objects import cropped
from .place import Place
from .regions import Region


def geojson(regions: list[Region], place: Place) -> bytes:
    """A GeoJSON file of objects: outlines along the edges of pixels, holes kept.

    Args:
        regions: the objects.
        place: of the image; without one, coordinates are columns and rows of pixels, and their
            corners whole numbers.

    Coordinates are in map units; like GDAL's, the file names a coordinate system other than
    WGS 84 in ``crs``.
    """
    content: dict[str, Any] = {"type": "FeatureCollection"}
    code = place.crs.to_epsg() if place.crs is not None else None
    if code and code != 4326:
        name = f"urn:ogc:def:crs:EPSG::{code}"
        content["crs"] = {"type": "name", "properties": {"name": name}}
    content["features"] = [
        {
            "type": "Feature",
            "properties": _properties(number, region),
            "geometry": outline(*cropped(region), place.transform),
        }
        for number, region in enumerate(regions, 1)
    ]
    return json.dumps(content).encode() + b"\n"


def outline(mask: np.ndarray, start: tuple[int, int], transform: Any) -> dict[str, Any]:
    """A GeoJSON polygon, or several, around the (h, w) bool pixels of a mask.

    Args:
        mask: the pixels.
        start: column and row of the first.
        transform: from columns and rows to map units; None leaves them.
    """
    from affine import Affine  # a part of rasterio
    from rasterio.features import shapes

    a, b, c, d, e, f = (transform or Affine.identity())[:6]
    x, y = start
    moved = Affine(a, b, a * x + b * y + c, d, e, d * x + e * y + f)
    found = shapes(mask.astype(np.uint8), mask=mask, connectivity=4, transform=moved)
    parts = [shape["coordinates"] for shape, _ in found]
    if len(parts) == 1:
        return {"type": "Polygon", "coordinates": parts[0]}
    return {"type": "MultiPolygon", "coordinates": parts}


def _properties(number: int, region: Region) -> dict[str, Any]:
    found = {"id": number, "class": region.label.name, "category_id": region.label.category_id}
    if region.score is not None:
        found["score"] = round(region.score, 6)
    return {**found, "area": region.area}


def labelme(regions: list[Region], file_name: str, height: int, width: int) -> bytes:
    """A labelme file of objects: the parts of one have its number as their ``group_id``.

    Args:
        regions: the objects.
        file_name: of the image, which labelme looks for beside the file.
        height: of the image.
        width: of the image.

    Polygons have no holes: a part with a hole is cut in two through it. Read back, they give the
    same pixels.
    """
    shapes = []
    for number, region in enumerate(regions, 1):
        mask, (x, y) = cropped(region)
        for polygon in to_polygons(mask):
            points = np.array(polygon).reshape(-1, 2) + np.array([x, y])
            shapes.append(
                {
                    "label": region.label.name,
                    "points": points.tolist(),
                    "group_id": number,
                    "description": "" if region.score is None else f"score {region.score:.4f}",
                    "shape_type": "polygon",
                    "flags": {},
                }
            )
    content: dict[str, Any] = {
        "version": "5.5.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": PurePath(file_name).name,
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }
    return json.dumps(content, indent=1).encode() + b"\n"
