"""The class ids of a window of a raster, from a label raster or from polygons."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from .arrays import as_label
from .errors import DatasetError
from .grids import corners_of, transform_at
from .label_encoding import LabelEncoding, UnlistedError
from .raster_windows import check_inside, window_gaps
from .rasters import open_raster
from .vectors import Features, read_features
from .window_names import Area, split_name

__all__ = ["RasterLabels", "VectorLabels", "WindowLabels"]


@dataclass(frozen=True)
class WindowLabels(LabelEncoding):
    """Reads labels of windows: called with a name such as ``a_mask.tif#xywh=512,0,256,256``.

    Pixels where the image has no data get the ignore label, whatever the label says.

    Attributes:
        image: the raster that is labelled.
    """

    image: str = ""

    def __call__(self, file_name: str) -> np.ndarray:
        """The class ids, (height, width), in the narrowest unsigned type that holds them.

        Raises:
            UnlistedError: a value or class that is not listed.
            DatasetError: an unreadable file.
        """
        path, area = split_name(file_name)
        if area is None:
            raise DatasetError(f"{file_name}: a window is expected, FILE#xywh=x,y,width,height")
        try:
            ids = self.window(path, area)
        except UnlistedError as error:
            raise UnlistedError(f"{file_name}: {error}") from None
        gaps = window_gaps(self.image, area)
        return self.ignored(ids, gaps) if gaps.any() else ids

    def window(self, path: str, area: Area) -> np.ndarray:
        """The class ids of a window, of pixels with and without data."""
        raise NotImplementedError

    def ignored(self, ids: np.ndarray, where: np.ndarray) -> np.ndarray:
        """A copy with the ignore label there, in a type that holds it."""
        changed = ids.astype(np.promote_types(ids.dtype, np.min_scalar_type(self.ignore_label)))
        changed[where] = self.ignore_label
        return changed


@dataclass(frozen=True)
class RasterLabels(WindowLabels):
    """Labels in the first and only band of a raster on the grid of the image.

    Pixels that it declares as nodata get the ignore label, unless that value stands for a class.
    """

    def window(self, path: str, area: Area) -> np.ndarray:
        """See `WindowLabels`."""
        with open_raster(Path(path)) as raster:
            check_inside(raster, area)
            stored = raster.read(1, window=(area.rows, area.columns))
            nodata = raster.nodata
        if nodata is None or self._is_class(nodata):
            return self.decode(as_label(path, stored, color=False))
        missing = np.isnan(stored) if np.isnan(nodata) else stored == nodata
        # Any value that is a class: the ignore label itself may be one among the stored values.
        known = self.values[0][0] if self.values else 0
        stored = np.where(missing, known, stored).astype(stored.dtype)
        ids = self.decode(as_label(path, stored, color=False))
        return self.ignored(ids, missing) if missing.any() else ids

    def _is_class(self, value: float) -> bool:
        return value in ([v for v, _ in self.values] or range(self.classes))


@dataclass(frozen=True)
class VectorLabels(WindowLabels):
    """Labels drawn from polygons: a pixel has the class of the last one that holds its centre.

    Attributes:
        names: of the classes, by id.
        class_property: of a feature: the name of its class, or its value.
        outside: the id of pixels in no polygon.
        crs: coordinate system of the image, as WKT; "" if it has none.
        transform: its first six numbers, from columns and rows to map units.
    """

    names: tuple[str, ...] = ()
    class_property: str = "class"
    outside: int = 0
    crs: str = ""
    transform: tuple[float, ...] = ()

    def window(self, path: str, area: Area) -> np.ndarray:
        """See `WindowLabels`."""
        from rasterio.features import rasterize

        features, ids = self.features(path)
        corners = corners_of(area, self.transform)
        shapes = [(features.geometries[i], ids[i]) for i in features.touching(corners)]
        kind = np.uint8 if max(self.classes - 1, self.ignore_label) < 256 else np.uint16
        if not shapes:
            return np.full((area.height, area.width), self.outside, kind)
        try:
            return rasterize(
                shapes,
                out_shape=(area.height, area.width),
                transform=transform_at(self.transform, area),
                fill=self.outside,
                dtype=kind,
            )
        except ValueError as error:
            raise DatasetError(f"{path}: a geometry cannot be drawn ({error})") from None

    def features(self, path: str) -> tuple[Features, tuple[int, ...]]:
        """The polygons of a file, in map units of the image, and their class ids.

        Raises:
            UnlistedError: a class that is not listed.
            DatasetError: see :func:`.vectors.read_features`.
        """
        try:
            stamp = os.stat(path).st_mtime_ns
        except OSError:
            raise DatasetError(f"{path}: no such file") from None
        # The same for all rasters of one coordinate system.
        return _features(replace(self, image="", transform=()), path, stamp)

    def class_of(self, value: Any) -> int | None:
        """The id of the class that a property names; None where there is none."""
        if isinstance(value, str):
            return self.names.index(value) if value in self.names else None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return None
        known = dict(self.values) or {i: i for i in range(self.classes)}
        known.setdefault(self.ignore_label, self.ignore_label)
        return known.get(int(value)) if float(value).is_integer() else None


@lru_cache(maxsize=16)
def _features(labels: VectorLabels, path: str, stamp: int) -> tuple[Features, tuple[int, ...]]:
    """Read once in each process, and anew when the file changes."""
    features = read_features(path, labels.crs)
    ids = []
    for number, properties in enumerate(features.properties):
        value = properties.get(labels.class_property)
        found = labels.class_of(value)
        if found is None and value is not None and labels.ignore_unlisted:
            found = labels.ignore_label
        if found is None:
            raise UnlistedError(_unknown_class(labels, path, number, properties))
        ids.append(found)
    return features, tuple(ids)


def _unknown_class(labels: VectorLabels, path: str, number: int, properties: dict[str, Any]) -> str:
    key = labels.class_property
    if key not in properties:
        there = ", ".join(sorted(properties)) or "none"
        return (
            f"{path}: feature {number} has no property '{key}' (it has {there}): name the one of "
            "its class in the description (class_property)"
        )
    return (
        f"{path}: feature {number}: {key} {properties[key]!r} is none of the classes "
        f"{', '.join(labels.names)}; list it, or say 'unlisted: ignore'"
    )
