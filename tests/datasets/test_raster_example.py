"""The generated raster: its polygons and its label raster agree, and its descriptions train."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import seg_plugins  # noqa: F401 - repairs Detectron2
from seg_plugins.data import register_custom_dataset
from seg_plugins.data.datasets.catalogue import load_dataset

import numpy as np
import pytest

rasterio = pytest.importorskip("rasterio")
ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "datasets" / "prepare_raster_example.py"


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(tmp_path), "--side", "1100"])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    return tmp_path


def test_raster_and_polygons_agree_in_every_pixel(folder):
    with rasterio.open(folder / "scene_labels.tif") as raster:
        stored = raster.read(1)
    with rasterio.open(folder / "scene.tif") as raster:
        pixels = raster.read()
    stored[(pixels == 0).all(axis=0)] = 255
    assert np.bincount(stored.ravel()).nonzero()[0].tolist() == [0, 1, 2, 255]
    for file in ("raster.yaml", "polygons.yaml"):
        found = np.full(stored.shape, 99, np.uint8)
        for name in register_custom_dataset(folder / file).values():
            for record in load_dataset(name):
                x, y = map(int, record["image_id"].split("_")[1:])
                label = record["sem_seg_encoding"](record["sem_seg_file_name"])
                found[y : y + label.shape[0], x : x + label.shape[1]] = label
        assert np.array_equal(found, stored)


@pytest.mark.slow
@pytest.mark.parametrize("labels", ["raster", "polygons"])
def test_memory_does_not_grow_with_the_raster(labels):
    command = [sys.executable, ROOT / "tools/benchmark_rasters.py", "--sizes", "2000", "6000",
               "--samples", "60", "--labels", labels]  # fmt: skip
    output = subprocess.run(
        [*map(str, command)], stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    peaks = [float(line.split()[5]) for line in output.splitlines()[1:]]
    assert len(peaks) == 2
    # Nine times the pixels: the larger image alone would need 92 MiB more.
    assert peaks[1] < peaks[0] + 30
