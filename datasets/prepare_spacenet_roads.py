#!/usr/bin/env python
"""Draw the road centre lines of SpaceNet 3 (RoadDetector) as label images.

    python datasets/prepare_spacenet_roads.py datasets/spacenet_roads [--buffer 2]

Reads, below AOI_*_Roads_Train/, the size and place of RGB-PanSharpen/RGB-PanSharpen_NAME.tif and
the lines of geojson/spacenetroads/spacenetroads_NAME.geojson, both in degrees. Writes
labels_png/RGB-PanSharpen_NAME.png with 0 and, up to --buffer metres from a line, 1 (the
organisers' own baseline takes 2 metres). Tiles without a GeoJSON file are left out.

The images have 11 significant bits in 16: set INPUT.FORMAT raw (RGB order) and INPUT.VALUE_RANGE,
e.g. [0, 2047].
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
from pathlib import Path

from seg_plugins.io.images import open_image

import cv2
import numpy as np

METRES_PER_DEGREE = 111_320.0  # of latitude
# TIFF tags of GeoTIFF: degrees per pixel, and the place of one point of the raster.
PIXEL_SCALE, TIE_POINT = 33550, 33922


def read_place(path: Path) -> tuple[tuple[int, int], np.ndarray, np.ndarray]:
    """(height, width), the place of the upper left corner and of a pixel's step, in degrees."""
    try:
        with open_image(str(path)) as image:
            tags, (width, height) = image.tag_v2, image.size
        dx, dy = tags[PIXEL_SCALE][:2]
        column, row, _, x, y = tags[TIE_POINT][:5]
    except (OSError, AttributeError, KeyError, ValueError) as error:
        sys.exit(f"{path}: no GeoTIFF with a scale and a tie point ({error!r})")
    step = np.array([dx, -dy])
    return (height, width), np.array([x, y]) - step * (column, row), step


def read_lines(path: Path) -> list[np.ndarray]:
    """The lines, (N, 2) longitudes and latitudes each; an empty file is a tile without roads."""
    try:
        text = path.read_text()
        shapes = [f["geometry"] for f in json.loads(text)["features"]] if text else []
        lines = []
        for shape in shapes:
            kind, points = shape["type"], shape["coordinates"]
            if kind in ("LineString", "MultiLineString") and points:
                parts = [points] if kind == "LineString" else points
                lines += [np.array(part, np.float64)[:, :2] for part in parts]
        return lines
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        sys.exit(f"{path}: no GeoJSON of lines ({error!r})")


def draw(label: np.ndarray, line: np.ndarray, metres: np.ndarray, buffer: float) -> None:
    """Set the pixels whose centre lies up to `buffer` metres from the line to 1.

    Args:
        label: (H, W) uint8, changed in place.
        line: (N, 2) x and y in pixels, the first pixel's corner at 0.
        metres: width and height of a pixel.
        buffer: in metres.
    """
    reach = buffer / metres
    for a, b in itertools.pairwise(line):
        low = np.floor(np.minimum(a, b) - reach).astype(int).clip(0)
        high = np.minimum(np.ceil(np.maximum(a, b) + reach).astype(int), label.shape[::-1])
        if (low >= high).any():
            continue
        x, y = np.meshgrid(*(np.arange(i, j) + 0.5 for i, j in zip(low, high, strict=True)))
        offset = (np.stack([x, y], axis=-1) - a) * metres
        along = (b - a) * metres
        place = (offset @ along / max(along @ along, 1e-12)).clip(0, 1)
        distance = np.linalg.norm(offset - place[..., None] * along, axis=-1)
        label[low[1] : high[1], low[0] : high[0]] |= distance <= buffer


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path, help="the folder of the AOI_*_Roads_Train folders")
    parser.add_argument("--buffer", type=float, default=2.0, help="metres")
    args = parser.parse_args()
    paths = sorted(args.root.glob("AOI_*_Roads_Train/RGB-PanSharpen/RGB-PanSharpen_*.tif"))
    if not paths:
        parser.error(f"{args.root}: no AOI_*_Roads_Train/RGB-PanSharpen/RGB-PanSharpen_*.tif")
    written = []
    for path in paths:
        city = path.parents[1]
        name = path.stem.removeprefix("RGB-PanSharpen_")
        lines = city / f"geojson/spacenetroads/spacenetroads_{name}.geojson"
        if not lines.is_file():
            continue
        (height, width), corner, step = read_place(path)
        latitude = corner[1] + step[1] * height / 2
        metres = np.abs(step) * METRES_PER_DEGREE * (math.cos(math.radians(latitude)), 1)
        label = np.zeros((height, width), np.uint8)
        for line in read_lines(lines):
            draw(label, (line - corner) / step, metres, args.buffer)
        target = city / "labels_png" / f"{path.stem}.png"
        target.parent.mkdir(exist_ok=True)
        if not cv2.imwrite(str(target), label):
            sys.exit(f"{target} could not be written")
        written.append((city.name, path.stem))
    for city_name in sorted({city for city, _ in written}):
        stems = [stem for city, stem in written if city == city_name]
        (args.root / city_name / "labelled.txt").write_text("\n".join(stems) + "\n")
    print(f"{len(written)} labels, {len(paths) - len(written)} tiles without lines' file")


if __name__ == "__main__":
    main()
