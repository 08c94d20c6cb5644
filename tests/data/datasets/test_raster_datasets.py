"""Datasets of rasters: windows, their labels, and parts of an area."""

from __future__ import annotations

from seg_plugins.data import Dataset, DatasetError, register_custom_dataset
from seg_plugins.data.datasets.raster_split import RasterSplit, tiles
from seg_plugins.evaluation import SemanticEvaluator
from seg_plugins.io.images import read_image
from seg_plugins.io.window_names import Area, split_name

import numpy as np
import pytest
import torch

rasterio = pytest.importorskip("rasterio")
from raster_scenes import (  # noqa: E402
    area_of,
    describe,
    records_of,
    shown,
    write_raster,
    write_scene,
)
from rasterio.shutil import copy  # noqa: E402


@pytest.mark.parametrize("split", [{"val_columns": 0.3}, {"val_rows": 0.2},
                                   {"val_rectangle": [60, 40, 70, 50]}, None])  # fmt: skip
def test_windows_are_slices_and_the_parts_tile_the_raster(tmp_path, split):
    pixels, labels = write_scene(tmp_path)
    records = records_of(describe(tmp_path, split=split))
    visits = np.zeros(labels.shape, int)
    for part in records.values():
        for record in part:
            area = area_of(record)
            rows, columns = slice(*area.rows), slice(*area.columns)
            image, label = shown(record)
            assert np.array_equal(image, pixels[:, rows, columns].transpose(1, 2, 0))
            assert np.array_equal(label, labels[rows, columns])
            assert (record["height"], record["width"]) == label.shape
            assert max(label.shape) <= 48
            visits[rows, columns] += 1
    assert (visits == 1).all()  # train and val share no pixel, and none is left out
    in_val = np.zeros(labels.shape, bool)
    for record in records["val"]:
        area = area_of(record)
        in_val[slice(*area.rows), slice(*area.columns)] = True
    expected = np.zeros(labels.shape, bool)
    if split is None:
        expected[:, 168:] = True  # a fifth of 210 columns
    elif "val_columns" in split:
        expected[:, 147:] = True
    elif "val_rows" in split:
        expected[120:] = True
    else:
        expected[40:90, 60:130] = True
    assert np.array_equal(in_val, expected)


def test_tiles_are_of_about_equal_sides():
    expected = [Area(5, 7, 33, 48), Area(38, 7, 34, 48), Area(72, 7, 33, 48)]
    assert tiles(Area(5, 7, 100, 48), 48) == expected
    assert RasterSplit(val_rectangle=(0, 0, 10, 4)).areas(10, 9) == (
        [Area(0, 4, 10, 5)],
        [Area(0, 0, 10, 4)],
    )


def test_a_name_is_that_of_one_window(tmp_path):
    write_scene(tmp_path)
    records = records_of(describe(tmp_path))
    names = [r["file_name"] for part in records.values() for r in part]
    assert len(set(names)) == len(names)
    assert split_name("b/a.tif#xywh=1,2,30,40") == ("b/a.tif", Area(1, 2, 30, 40))
    assert split_name("b/a#1.tif") == ("b/a#1.tif", None)


def test_a_virtual_mosaic_is_a_raster_too(tmp_path):
    """GDAL's VRT names the files that it is made of."""
    pixels, _ = write_scene(tmp_path)
    copy(tmp_path / "a.tif", tmp_path / "a.vrt", driver="VRT")
    record = records_of(describe(tmp_path, rasters="a.vrt"))["train"][3]
    area = area_of(record)
    expected = pixels[:, slice(*area.rows), slice(*area.columns)]
    assert np.array_equal(shown(record)[0], expected.transpose(1, 2, 0))


def test_pixels_without_data_are_ignored_and_filled(tmp_path):
    pixels, labels = write_scene(tmp_path)
    pixels = pixels.astype(np.float32)
    gaps = np.zeros(labels.shape, bool)
    gaps[5:20, 10:40] = gaps[100:, :3] = True
    pixels[1][gaps] = -9999
    write_raster(tmp_path / "a.tif", pixels, nodata=-9999)
    counted = 0
    for record in records_of(describe(tmp_path, split={"val_columns": 0}))["train"]:
        area = area_of(record)
        part = slice(*area.rows), slice(*area.columns)
        label = record["sem_seg_encoding"](record["sem_seg_file_name"])
        assert np.array_equal(label, np.where(gaps[part], 255, labels[part]))
        image = read_image(record["file_name"], "raw")
        known = ~gaps[part]
        assert np.array_equal(image[known], pixels[(slice(None), *part)].transpose(1, 2, 0)[known])
        assert image.min() >= 0
        counted += gaps[part].sum()
    assert counted == gaps.sum()


def test_nodata_of_the_label_is_ignored_unless_it_is_a_class(tmp_path):
    _, labels = write_scene(tmp_path)
    for nodata, expected in ((7, 255), (2, 2)):
        stored = np.where(labels == 2, nodata, labels).astype(np.int16)
        write_raster(tmp_path / "a_mask.tif", stored[None], nodata=nodata)
        records = records_of(describe(tmp_path))["train"]
        found = {value for record in records for value in np.unique(shown(record)[1])}
        assert found == {0, 1, expected}


def test_nodata_of_a_label_that_stores_the_ignore_label_as_a_class(tmp_path):
    _, labels = write_scene(tmp_path)
    stored = np.array([0, 255, 99], np.uint8)[labels]
    write_raster(tmp_path / "a_mask.tif", stored[None], nodata=99)
    classes = [{"name": n, "value": v} for n, v in (("ground", 0), ("field", 255))]
    record = records_of(describe(tmp_path, classes=classes))["train"][0]
    expected = np.where(labels == 2, 255, labels)[: record["height"], : record["width"]]
    assert np.array_equal(shown(record)[1], expected)


def test_stored_values_stand_for_classes(tmp_path):
    _, labels = write_scene(tmp_path)
    stored = np.array([10, 20, 30], np.uint8)[labels]
    write_raster(tmp_path / "a_mask.tif", stored[None])
    classes = [{"name": n, "value": v} for n, v in (("g", 10), ("f", 20), ("t", 30))]
    record = records_of(describe(tmp_path, classes=classes))["train"][0]
    assert np.array_equal(shown(record)[1], labels[: record["height"], : record["width"]])
    record = records_of(describe(tmp_path))["train"][0]
    with pytest.raises(DatasetError, match=r"a_mask\.tif#xywh=0,0,42,38: the values? [12]0 "):
        shown(record)


def test_the_evaluation_counts_the_part_that_validates_once(tmp_path):
    """Of the predictions, every pixel of class 0 is right and the others are called 0, too."""
    _, labels = write_scene(tmp_path)
    dataset = Dataset.get(register_custom_dataset(describe(tmp_path))["val"])
    evaluator = SemanticEvaluator(dataset, tmp_path / "out")
    for record in dataset.records:
        area = area_of(record)
        prediction = torch.zeros((area.height, area.width), dtype=torch.uint8)
        evaluator.process([record], [{"sem_seg": prediction}])
    scores = evaluator.evaluate()["sem_seg"]
    counts = np.bincount(labels[:, 168:].ravel(), minlength=3)
    assert evaluator.confusion[:3].sum(axis=1).tolist() == counts.tolist()
    assert scores["pACC"] == pytest.approx(100 * counts[0] / counts.sum())
    assert scores["IoU-ground"] == pytest.approx(100 * counts[0] / counts.sum())
