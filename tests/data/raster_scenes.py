"""Small rasters of known truth, with a description."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from seg_plugins.data import register_custom_dataset
from seg_plugins.data.datasets.catalogue import load_dataset
from seg_plugins.io.images import read_image
from seg_plugins.io.window_names import Area, split_name

import numpy as np
import rasterio
import yaml
from affine import Affine

PLACE = {"crs": "EPSG:32633", "transform": Affine(0.5, 0, 400_000, 0, -0.5, 5_800_000)}
CLASSES = ["ground", "field", "tree"]


def write_raster(path: Path, pixels: np.ndarray, **more: Any) -> Path:
    """(bands, H, W) as a tiled TIFF at `PLACE`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bands, height, width = pixels.shape
    options = {**PLACE, "tiled": True, "blockxsize": 32, "blockysize": 32, **more}
    with rasterio.open(
        path, "w", driver="GTiff", count=bands, height=height, width=width, dtype=pixels.dtype,
        **options,
    ) as raster:  # fmt: skip
        raster.write(pixels)
    return path


def scene(height: int = 150, width: int = 210) -> tuple[np.ndarray, np.ndarray]:
    """(3, H, W) random colours; (H, W) labels: few pixels are trees."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(1, 256, (3, height, width)).astype(np.uint8)
    labels = (np.add.outer(np.arange(height), np.arange(width)) % 50 > 25).astype(np.uint8)
    labels[70:74, 30:35] = 2
    return pixels, labels


def write_scene(folder: Path, **more: Any) -> tuple[np.ndarray, np.ndarray]:
    """``a.tif`` and ``a_mask.tif``."""
    pixels, labels = scene()
    write_raster(folder / "a.tif", pixels, **more)
    write_raster(folder / "a_mask.tif", labels[None])
    return pixels, labels


def describe(folder: Path, **content: Any) -> Path:
    """``my.yaml``; None leaves a key out."""
    base = {"name": "land", "task": "semantic", "classes": CLASSES, "rasters": ["a.tif"],
            "labels": ["a_mask.tif"], "windows": {"size": 48}}  # fmt: skip
    path = folder / "my.yaml"
    kept = {key: value for key, value in (base | content).items() if value is not None}
    path.write_text(yaml.safe_dump(kept))
    return path


def write_polygons(
    path: Path, polygons: list[tuple[str, list]], crs: str | None = "EPSG::32633"
) -> Path:
    """A GeoJSON of (class, ring) in map units."""
    content: dict[str, Any] = {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "properties": {"class": name},
                "geometry": {"type": "Polygon", "coordinates": [ring]},
            }
            for name, ring in polygons
        ],
    }
    if crs:
        content["crs"] = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:{crs}"}}
    path.write_text(json.dumps(content))
    return path


def records_of(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Part -> records of a description."""
    return {split: load_dataset(name) for split, name in register_custom_dataset(path).items()}


def area_of(record: dict[str, Any]) -> Area:
    """The window of a record."""
    return split_name(record["file_name"])[1]


def shown(record: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Image and label of a record."""
    label = record["sem_seg_encoding"](record["sem_seg_file_name"])
    return read_image(record["file_name"], "RGB"), label
