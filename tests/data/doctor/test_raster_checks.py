"""The doctor on rasters: parts that overlap, pixels without data, labels that do not fit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from seg_plugins.config import ConfigError
from seg_plugins.data import apply_custom_dataset, register_custom_dataset
from seg_plugins.data.datasets.catalogue import load_dataset
from seg_plugins.data.doctor import check_before_training, check_dataset

import numpy as np
import pytest

pytest.importorskip("rasterio")
from affine import Affine
from raster_scenes import PLACE, describe, scene, write_raster, write_scene

TOOL = Path(__file__).parents[3] / "tools/check_dataset.py"


def overlaps(path):
    names = register_custom_dataset(path)
    report = check_dataset(names["train"], other_names=(names["val"],), workers=1)
    return report, [p for p in report.problems if p.kind == "overlap"]


def test_parts_by_area_share_nothing(tmp_path):
    _, labels = write_scene(tmp_path)
    report, found = overlaps(describe(tmp_path))
    assert not found
    assert not report.errors
    trained = labels[:, :168]
    assert list(report.class_pixels.values()) == np.bincount(trained.ravel()).tolist()
    assert report.samples == report.checked == len(load_dataset("land_train"))


def test_a_raster_in_both_parts_is_an_error(tmp_path):
    write_scene(tmp_path)
    (tmp_path / "link.tif").symlink_to(tmp_path / "a.tif")
    val = {"rasters": "link.tif", "labels": "a_mask.tif"}
    _, found = overlaps(describe(tmp_path, val=val))
    assert len(found) > 0
    assert f"{tmp_path}/a.tif: " in found[0].message
    assert "are in those of land_val, too" in found[0].message


def test_rasters_of_the_same_ground_are_an_error(tmp_path):
    """Two files: the second begins 100 columns and 20 rows after the first."""
    pixels, labels = scene()
    write_scene(tmp_path)
    for shift, shared in ((100, 110 * 130), (210, 0)):
        place = {**PLACE, "transform": Affine(0.5, 0, 400_000 + shift / 2, 0, -0.5, 5_799_990)}
        write_raster(tmp_path / "b.tif", pixels, **place)
        write_raster(tmp_path / "b_mask.tif", labels[None], **place)
        val = {"rasters": "b.tif", "labels": "b_mask.tif"}
        _, found = overlaps(describe(tmp_path, val=val))
        if not shared:
            assert not found
            continue
        numbers = [int(p.message.split("ground: ")[1].split()[0]) for p in found]
        assert sum(numbers) == shared


def test_pixels_without_data_are_counted(tmp_path):
    pixels, _ = write_scene(tmp_path)
    pixels[:, 10:20, 5:35] = 0
    write_raster(tmp_path / "a.tif", pixels, nodata=0)
    report, _ = overlaps(describe(tmp_path))
    (found,) = [p.message for p in report.problems if p.kind == "no data"]
    assert found.startswith(f"300 of {150 * 168} pixels of {report.samples} windows hold no data")
    assert report.ignored_pixels == 300


def test_training_stops_before_it_starts_on_an_overlap(tmp_path):
    import seg_plugins

    write_scene(tmp_path)
    cfg = seg_plugins.get_cfg()
    val = {"rasters": "a.tif", "labels": "a_mask.tif"}
    cfg.DATASETS.CUSTOM = str(describe(tmp_path, val=val))
    apply_custom_dataset(cfg)
    with pytest.raises(ConfigError, match=r"a\.tif: .* pixels of its windows are in those of land"):
        check_before_training(cfg)


def test_undeclared_nan_and_unlisted_values_are_errors_of_their_windows(tmp_path):
    pixels, labels = write_scene(tmp_path)
    pixels = pixels.astype(np.float32)
    pixels[0, 3, 3] = np.nan
    write_raster(tmp_path / "a.tif", pixels)
    labels[140, 4] = 9
    write_raster(tmp_path / "a_mask.tif", labels[None])
    report, _ = overlaps(describe(tmp_path))
    errors = {p.kind: p.message for p in report.problems if p.is_error}
    assert set(errors) == {"not finite", "label value"}
    assert "a.tif#xywh=0,0,42,38: 1 of 1596 pixels hold NaN" in errors["not finite"]
    assert "a_mask.tif#xywh=0,112,42,38: the value 9 (1 pixels)" in errors["label value"]


@pytest.mark.slow
def test_the_command_says_so(tmp_path):
    write_scene(tmp_path)
    val = {"rasters": "a.tif", "labels": "a_mask.tif"}
    command = [sys.executable, TOOL, "--custom", describe(tmp_path, val=val)]
    run = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert run.returncode == 1
    assert "ERROR overlap: " in run.stdout
