#!/usr/bin/env python
"""Make a raster of any size with known truth, and the descriptions to train on it.

    python datasets/prepare_raster_example.py datasets/raster_example --side 20000

Needs rasterio: pip install "seg_plugins[geo]". Writes scene.tif (RGB, georeferenced, with a corner
that holds no data), its classes as scene_labels.tif and as polygons in scene.geojson, and two
descriptions: raster.yaml reads the labels of the raster, polygons.yaml those of the polygons. They
agree in every pixel. Train with

    python tools/train_net.py --data FOLDER/raster.yaml
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

BLOCK = 512
# A field and a tree in each cell of so many pixels a side; trees in every eighth cell.
CELL = 256
COLORS = np.array([[110, 90, 60], [150, 170, 60], [30, 80, 30]], np.uint8)
DESCRIPTION = """\
# Made by prepare_raster_example.py. Paths are relative to this file.
name: {name}
task: semantic
classes:
  - {{name: ground, color: [110, 90, 60]}}
  - {{name: field, color: [150, 170, 60]}}
  - {{name: tree, color: [30, 80, 30]}}
rasters: [scene.tif]
{labels}
# Windows of 256 x 256 pixels, drawn so that the few trees are seen as often as the other classes.
windows: {{size: 256, class_balanced: true}}
# The columns at the right validate: a fifth of them.
split: {{val_columns: 0.2}}
"""


def outlines(side: int) -> list[tuple[int, list[list[float]]]]:
    """(class, ring) in columns and rows: fields, then trees, which may stand in fields."""
    rng = np.random.default_rng(0)
    found: list[tuple[int, list[list[float]]]] = []
    for y in range(0, side, CELL):
        for x in range(0, side, CELL):
            low, high = rng.uniform(10, 80, 2), rng.uniform(150, 240, 2)
            corner = np.array([x, y])
            (x0, y0), (x1, y1) = low + corner, high + corner
            found.append((1, [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]))
    turn = np.linspace(0, 2 * np.pi, 13)
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    for y in range(0, side, CELL):
        for x in range(0, side, 8 * CELL):
            corner = np.array([x + CELL * int(rng.integers(8)), y])
            centre = rng.uniform(20, 230, 2) + corner
            found.append((2, (centre + rng.uniform(6, 14) * circle).tolist()))
    return [(kind, ring) for kind, ring in found if np.max(ring) < side]


def write_scene(folder: Path, side: int) -> None:
    """The raster and its labels, block by block."""
    import rasterio
    from affine import Affine
    from rasterio.features import rasterize

    place = Affine(0.5, 0, 400_000, 0, -0.5, 5_800_000)
    known = outlines(side)
    bounds = np.array([[np.min(ring, axis=0), np.max(ring, axis=0)] for _, ring in known])
    shared: dict[str, Any] = {
        "driver": "GTiff", "height": side, "width": side, "dtype": "uint8", "crs": "EPSG:32633",
        "transform": place, "tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK,
        "bigtiff": "if_safer",
    }  # fmt: skip
    rng = np.random.default_rng(1)
    with (
        rasterio.Env(GDAL_CACHEMAX=64),
        rasterio.open(folder / "scene.tif", "w", count=3, nodata=0, **shared) as image,
        rasterio.open(folder / "scene_labels.tif", "w", count=1, compress="deflate", **shared)
        as labels,
    ):  # fmt: skip
        for y in range(0, side, BLOCK):
            for x in range(0, side, BLOCK):
                height, width = min(BLOCK, side - y), min(BLOCK, side - x)
                near = (bounds[:, 0] < [x + width, y + height]) & (bounds[:, 1] > [x, y])
                shapes = [
                    ({"type": "Polygon", "coordinates": [known[i][1]]}, known[i][0])
                    for i in np.flatnonzero(near.all(axis=1))
                ]
                size = (height, width)
                ids = np.zeros(size, np.uint8)
                if shapes:
                    ids = rasterize(shapes, size, transform=Affine(1, 0, x, 0, 1, y), dtype="uint8")
                noise = rng.integers(-25, 26, (*size, 3), np.int16)
                pixels = (COLORS[ids] + noise).astype(np.uint8)
                rows, columns = np.mgrid[y : y + height, x : x + width]
                pixels[rows + columns < side // 8] = 0
                window = ((y, y + height), (x, x + width))
                image.write(pixels.transpose(2, 0, 1), window=window)
                labels.write(ids[None], window=window)
    names = ("ground", "field", "tree")
    features = [
        {
            "type": "Feature",
            "properties": {"class": names[kind]},
            "geometry": {
                "type": "Polygon",
                "coordinates": [[[400_000 + x / 2, 5_800_000 - y / 2] for x, y in ring]],
            },
        }
        for kind, ring in known
    ]
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    content = {"type": "FeatureCollection", "crs": crs, "features": features}
    (folder / "scene.geojson").write_text(json.dumps(content), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--side", type=int, default=2000, help="pixels (default: %(default)s)")
    args = parser.parse_args()
    if args.side < 2 * BLOCK:
        parser.error(f"--side {args.side}: give {2 * BLOCK} pixels or more")
    args.folder.mkdir(parents=True, exist_ok=True)
    write_scene(args.folder, args.side)
    for name, labels in (
        ("raster", "labels: [scene_labels.tif]"),
        ("polygons", "labels: [scene.geojson]\noutside: ground   # pixels in no polygon"),
    ):
        text = DESCRIPTION.format(name=f"{name}_example", labels=labels)
        (args.folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    print(f"{args.folder / 'raster.yaml'} and polygons.yaml: {args.side} x {args.side} pixels")


if __name__ == "__main__":
    main()
