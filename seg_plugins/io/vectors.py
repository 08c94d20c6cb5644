"""Vector files, GeoJSON above all: polygons with their class, in the coordinates of a raster."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .errors import DatasetError

__all__ = ["Features", "is_vector", "read_features"]

# Of a file that names no coordinate system (RFC 7946).
_WGS84 = "EPSG:4326"
_GEOJSON = (".geojson", ".json")
_BY_FIONA = (".shp", ".gpkg")


class Features(NamedTuple):
    """The polygons of a vector file.

    Attributes:
        geometries: GeoJSON's, Polygon or MultiPolygon, in the order of the file.
        properties: of each.
        bounds: (N, 4) the smallest and the largest x and y: x0, y0, x1, y1.
    """

    geometries: list[dict[str, Any]]
    properties: list[dict[str, Any]]
    bounds: np.ndarray

    def touching(self, corners: np.ndarray) -> list[int]:
        """The places of those whose bounds touch those of the points `corners`, (N, 2)."""
        (x0, y0), (x1, y1) = corners.min(axis=0), corners.max(axis=0)
        low, high = self.bounds[:, :2], self.bounds[:, 2:]
        inside = (low <= [x1, y1]).all(axis=1) & (high >= [x0, y0]).all(axis=1)
        return np.flatnonzero(inside).tolist()


def is_vector(file_name: str) -> bool:
    """Whether a file is one of polygons, by its name."""
    return file_name.lower().endswith(_GEOJSON + _BY_FIONA)


def read_features(file_name: str, crs: str) -> Features:
    """Read the polygons of a vector file.

    Args:
        file_name: GeoJSON; shapefile or GeoPackage where fiona is installed.
        crs: coordinate system of the raster, as WKT, which the polygons are brought into; "": it
            has none, and the coordinates are taken as they are.

    Raises:
        DatasetError: an unreadable file, something else than polygons, or coordinate systems that
            do not fit; the message names the feature.
    """
    if file_name.lower().endswith(_BY_FIONA):
        found, source_crs = _read_by_fiona(file_name)
    else:
        found, source_crs = _read_geojson(file_name)
    geometries: list[dict[str, Any]] = []
    properties, bounds = [], []
    for number, feature in enumerate(found):
        where = f"{file_name}: feature {feature.get('id', number)}"
        geometry: Any = feature.get("geometry")
        kind = geometry.get("type") if isinstance(geometry, dict) else None
        if kind not in ("Polygon", "MultiPolygon"):
            raise DatasetError(
                f"{where}: a {kind or 'missing'} geometry where a polygon is expected"
            )
        try:
            bounds.append(_bounds(geometry))
        except (TypeError, ValueError, KeyError):
            raise DatasetError(f"{where}: its coordinates are no polygon of numbers") from None
        if not _is_valid(geometry):  # rasterize would leave it out without a word
            raise DatasetError(
                f"{where}: no valid polygon: a ring needs four points, of which the last is the "
                "first"
            )
        geometries.append(geometry)
        properties.append(dict(feature.get("properties") or {}))
    corners = np.array(bounds).reshape(-1, 4)
    if not crs:
        if source_crs is not None:
            raise DatasetError(
                f"{file_name} names a coordinate system, and the raster has none: give "
                "it one (rio edit-info --crs), or save the polygons in columns and rows"
            )
        return Features(geometries, properties, corners)
    geometries = _moved(geometries, corners, source_crs, crs, file_name)
    return Features(geometries, properties, np.array([*map(_bounds, geometries)]).reshape(-1, 4))


def _is_valid(geometry: dict[str, Any]) -> bool:
    from rasterio.features import is_valid_geom

    return is_valid_geom(geometry)


def _moved(
    geometries: list[dict[str, Any]], bounds: np.ndarray, source: Any, crs: str, file_name: str
) -> list[dict[str, Any]]:
    """The geometries in another coordinate system."""
    from rasterio.crs import CRS
    from rasterio.errors import CRSError
    from rasterio.warp import transform_geom

    if source is None and len(bounds) and np.abs(bounds).max() > 180:
        raise DatasetError(
            f"{file_name}: names no coordinate system, so that its coordinates are degrees "
            f"(WGS 84), and {np.abs(bounds).max():g} is none: name it in 'crs' "
            f"(ogr2ogr -t_srs EPSG:4326 converts)"
        )
    try:
        known = CRS.from_user_input(_WGS84 if source is None else source)
    except CRSError as error:
        raise DatasetError(f"{file_name}: an unknown coordinate system ({error})") from None
    wanted = CRS.from_wkt(crs)
    if known == wanted or not geometries:
        return geometries
    return list(transform_geom(known, wanted, geometries))


def _bounds(geometry: dict[str, Any]) -> tuple[float, float, float, float]:
    points = np.concatenate([np.array(ring, np.float64)[:, :2] for ring in _rings(geometry)])
    if not np.isfinite(points).all():
        raise ValueError("infinite")
    return (*points.min(axis=0).tolist(), *points.max(axis=0).tolist())


def _rings(geometry: dict[str, Any]) -> Iterator[Any]:
    parts = geometry["coordinates"]
    for polygon in [parts] if geometry["type"] == "Polygon" else parts:
        yield from polygon


def _read_geojson(file_name: str) -> tuple[list[dict[str, Any]], Any]:
    """The features, and the name of the coordinate system that old GeoJSON has in ``crs``."""
    try:
        content = json.loads(Path(file_name).read_bytes())
    except FileNotFoundError:
        raise DatasetError(f"{file_name}: no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{file_name}: not readable as GeoJSON ({error})") from None
    features = content.get("features") if isinstance(content, dict) else None
    if not isinstance(features, list) or not all(isinstance(f, dict) for f in features):
        raise DatasetError(f"{file_name}: expected a FeatureCollection (GeoJSON)")
    named = content.get("crs")
    if named is None:
        return features, None
    try:
        return features, str(named["properties"]["name"])
    except (TypeError, KeyError):
        raise DatasetError(
            f"{file_name}: crs should be {{type: name, properties: {{name: ...}}}}"
        ) from None


def _read_by_fiona(file_name: str) -> tuple[list[dict[str, Any]], Any]:
    if importlib.util.find_spec("fiona") is None:
        raise DatasetError(
            f"{file_name}: read with fiona: pip install fiona, or convert it: "
            f"ogr2ogr {Path(file_name).with_suffix('.geojson').name} {Path(file_name).name}"
        )
    import fiona

    try:
        with fiona.open(file_name) as source:
            found = [
                {
                    "id": feature["id"],
                    "geometry": getattr(g := feature["geometry"], "__geo_interface__", g),
                    "properties": dict(feature["properties"]),
                }
                for feature in source
            ]
            return found, source.crs_wkt or None
    except (OSError, ValueError, fiona.errors.FionaError) as error:
        raise DatasetError(f"{file_name}: not a readable vector file ({error})") from None
