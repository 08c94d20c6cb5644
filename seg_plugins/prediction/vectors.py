"""Outlines of objects for maps (GeoJSON, GeoPackage) and for correction by hand (labelme)."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from ..io.files import whole_file
from ..io.masks import to_crop, to_polygons
from .errors import PredictionError
from .labels import Label
from .place import Place
from .regions import Region

# Of a GeoPackage; its own column of keys is called fid.
_FIELDS = {
    "id": "int64", "class": "str", "category_id": "int64", "area": "int64", "score": "float",
}  # fmt: skip


def geojson(features: Iterable[dict[str, Any]], place: Place) -> Iterator[bytes]:
    """The pieces of a GeoJSON file.

    Args:
        features: of :func:`feature`.
        place: of the image, the same as theirs. Like GDAL's, the file names a coordinate system
            other than WGS 84 in ``crs``.

    Raises:
        PredictionError: a coordinate system without a code.
    """
    head: dict[str, Any] = {"type": "FeatureCollection"}
    authority = place.crs.to_authority() if place.crs is not None else None
    if place.crs is not None and authority is None:
        raise PredictionError(
            "geojson names a coordinate system by its code, and that of the image has none: give "
            "it one with gdalwarp -t_srs EPSG:..., or leave geojson out of --save"
        )
    if authority and authority != ("EPSG", "4326"):
        name = "urn:ogc:def:crs:{}::{}".format(*authority)
        head["crs"] = {"type": "name", "properties": {"name": name}}
    yield json.dumps(head)[:-1].encode() + b', "features": ['
    for number, one in enumerate(features):
        yield (b",\n" if number else b"\n") + json.dumps(one).encode()
    yield b"\n]}\n"


def check_geopackage() -> None:
    """Raise PredictionError where GeoPackages cannot be written."""
    if importlib.util.find_spec("fiona") is None:
        raise PredictionError(
            "geopackage is written with fiona: pip install seg_plugins[geo]; or --save geojson and "
            "ogr2ogr -f GPKG NAME.gpkg NAME.geojson"
        )


def write_geopackage(path: Path, features: Iterable[dict[str, Any]], place: Place) -> None:
    """Write features into the layer ``objects`` of a GeoPackage.

    Args:
        path: the file, whole or not there.
        features: of :func:`feature`.
        place: of the image, the same as theirs.
    """
    import fiona

    schema = {"geometry": "MultiPolygon", "properties": _FIELDS}
    crs = {} if place.crs is None else {"crs_wkt": place.crs.to_wkt()}
    with (
        whole_file(path) as temporary,
        fiona.open(temporary, "w", driver="GPKG", layer="objects", schema=schema, **crs) as file,
    ):
        for one in features:
            shape = one["geometry"]
            if shape["type"] == "Polygon":  # one type for a layer
                shape = {"type": "MultiPolygon", "coordinates": [shape["coordinates"]]}
            values = {field: one["properties"].get(field) for field in _FIELDS}
            file.write({"type": "Feature", "geometry": shape, "properties": values})


def features(regions: list[Region], place: Place) -> Iterator[dict[str, Any]]:
    """The GeoJSON features of the objects of one image."""
    for number, region in enumerate(regions, 1):
        mask, start = to_crop(region.mask)
        shape = outline(mask, start, place.transform)
        yield feature(number, region.label, region.score, int(mask.sum()), shape)


def feature(
    number: int, label: Label, score: float | None, area: int, geometry: dict[str, Any]
) -> dict[str, Any]:
    """A GeoJSON feature of an object; `area` in pixels."""
    found: dict[str, Any] = {
        "id": number,
        "class": label.name,
        "category_id": label.category_id,
        "area": area,
    }
    if score is not None:
        found["score"] = round(score, 6)
    return {"type": "Feature", "properties": found, "geometry": geometry}


def outline(mask: np.ndarray, start: tuple[int, int], transform: Any) -> dict[str, Any]:
    """A GeoJSON polygon, or several, along the edges of the pixels of a mask, holes kept.

    Args:
        mask: (h, w) bool.
        start: column and row of its first pixel.
        transform: from columns and rows to map units; None leaves them: corners are whole numbers.
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
        mask, (x, y) = to_crop(region.mask)
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
