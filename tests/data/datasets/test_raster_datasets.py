"""Datasets of rasters: windows, their labels, parts of an area, and what is wrong with files."""

from __future__ import annotations

import re

from seg_plugins.data import Dataset, DatasetError, register_custom_dataset
from seg_plugins.data.datasets.catalogue import load_dataset
from seg_plugins.data.datasets.raster_split import RasterSplit, tiles
from seg_plugins.evaluation import SemanticEvaluator
from seg_plugins.io.images import read_image
from seg_plugins.io.window_names import Area, split_name

import numpy as np
import pytest
import torch

rasterio = pytest.importorskip("rasterio")
from affine import Affine  # noqa: E402
from PIL import Image  # noqa: E402
from raster_scenes import (  # noqa: E402
    PLACE,
    describe,
    scene,
    write_polygons,
    write_raster,
    write_scene,
)
from rasterio.features import rasterize  # noqa: E402
from rasterio.shutil import copy  # noqa: E402
from rasterio.warp import transform_geom  # noqa: E402


def records_of(path):
    return {split: load_dataset(name) for split, name in register_custom_dataset(path).items()}


def area_of(record):
    return split_name(record["file_name"])[1]


def shown(record):
    """Image and label of a record."""
    label = record["sem_seg_encoding"](record["sem_seg_file_name"])
    return read_image(record["file_name"], "RGB"), label


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


# ------------------------------------------------------------------ polygons


def random_polygons(number=12):
    """Rings in map units, of which some overlap, and some reach over the raster."""
    rng = np.random.default_rng(3)
    found = []
    for i in range(number):
        centre, angles = rng.uniform([-5, -5], [110, 80]), np.sort(rng.uniform(0, 2 * np.pi, 7))
        ring = centre + rng.uniform(4, 25, (7, 1)) * np.stack([np.cos(angles), np.sin(angles)], 1)
        points = [[400_000 + x, 5_800_000 - y] for x, y in ring]
        found.append((("field", "tree")[i % 2], [*points, points[0]]))
    return found


def test_labels_from_polygons_are_those_of_rasterize(tmp_path):
    write_scene(tmp_path)
    polygons = random_polygons()
    write_polygons(tmp_path / "a.geojson", polygons)
    ids = {"field": 1, "tree": 2}
    truth = rasterize(
        [({"type": "Polygon", "coordinates": [ring]}, ids[name]) for name, ring in polygons],
        out_shape=(150, 210), transform=PLACE["transform"],
    )  # fmt: skip
    assert np.bincount(truth.ravel()).min() > 500
    records = records_of(describe(tmp_path, labels="a.geojson", outside="ground"))
    for record in records["train"] + records["val"]:
        area = area_of(record)
        assert np.array_equal(shown(record)[1], truth[slice(*area.rows), slice(*area.columns)])


def test_polygons_in_degrees_are_brought_onto_the_raster(tmp_path):
    write_scene(tmp_path)
    ring = [[x, y] for x, y in ((400_010.1, 5_799_990.1), (400_030.1, 5_799_990.1),
                                (400_030.1, 5_799_970.1), (400_010.1, 5_799_990.1))]  # fmt: skip
    known = {"type": "Polygon", "coordinates": [ring]}
    moved = transform_geom("EPSG:32633", "EPSG:4326", known)
    write_polygons(tmp_path / "a.geojson", [("tree", moved["coordinates"][0])], crs=None)
    truth = rasterize([(known, 2)], out_shape=(150, 210), transform=PLACE["transform"])
    records = records_of(describe(tmp_path, labels=["a.geojson"], outside="ignore"))
    for record in records["train"]:
        area = area_of(record)
        part = truth[slice(*area.rows), slice(*area.columns)]
        assert np.array_equal(shown(record)[1], np.where(part == 2, 2, 255))


def test_without_a_place_polygons_are_in_columns_and_rows(tmp_path):
    pixels, _ = scene()
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        write_raster(tmp_path / "a.tif", pixels, crs=None, transform=None)
    square = [[10, 20], [30, 20], [30, 25], [10, 25], [10, 20]]
    write_polygons(tmp_path / "a.geojson", [("tree", square)], crs=None)
    records = records_of(describe(tmp_path, labels="a.geojson", outside="ground"))["train"]
    label = shown(records[0])[1]
    expected = np.zeros(label.shape, bool)
    expected[20:25, 10:30] = True
    assert np.array_equal(label == 2, expected)
    write_polygons(tmp_path / "a.geojson", [("tree", square)])
    with pytest.raises(DatasetError, match=r"a\.tif: .*a\.geojson names a coordinate system, and"):
        records_of(describe(tmp_path, labels="a.geojson", outside="ground"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"outside": None}, "outside is missing"),
        ({"outside": "sea"}, "outside is 'sea'; it should be ignore or one of ground"),
        ({"class_property": "kind"}, r"feature 0 has no property 'kind' \(it has class\)"),
        ({"classes": ["ground", "tree"]}, "feature 0: class 'field' is none of the classes"),
    ],
)
def test_what_polygons_lack_is_said(tmp_path, change, words):
    write_scene(tmp_path)
    write_polygons(tmp_path / "a.geojson", random_polygons())
    with pytest.raises(DatasetError, match=rf"my\.yaml: .*{words}|a\.geojson: .*{words}|{words}"):
        records_of(describe(tmp_path, **{"labels": "a.geojson", "outside": "ground"} | change))


def test_polygons_elsewhere_or_of_another_kind_are_refused(tmp_path):
    write_scene(tmp_path)
    path = describe(tmp_path, labels="a.geojson", outside="ground")
    far = [[0, 0], [1, 0], [1, 1], [0, 0]]
    write_polygons(tmp_path / "a.geojson", [("tree", far)])
    with pytest.raises(DatasetError, match="none of its 1 polygons lies on the raster"):
        records_of(path)
    write_polygons(tmp_path / "a.geojson", random_polygons(), crs=None)
    with pytest.raises(DatasetError, match=r"names no coordinate system, .*degrees"):
        records_of(path)
    write_polygons(tmp_path / "a.geojson", [("tree", far[:3])])
    with pytest.raises(DatasetError, match="feature 0: no valid polygon: a ring needs four"):
        records_of(path)
    write_polygons(tmp_path / "a.geojson", random_polygons(), crs=None)
    content = (tmp_path / "a.geojson").read_text().replace("Polygon", "LineString", 1)
    (tmp_path / "a.geojson").write_text(content)
    with pytest.raises(DatasetError, match="feature 0: a LineString geometry where a polygon"):
        records_of(path)
    (tmp_path / "a.geojson").write_text("{")
    with pytest.raises(DatasetError, match=r"a\.geojson: not readable as GeoJSON"):
        records_of(path)


# ------------------------------------------------------------------ files that do not fit


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"transform": Affine(0.5, 0, 400_000.5, 0, -0.5, 5_800_000)}, "another place on Earth"),
        ({"crs": "EPSG:32632"}, "another coordinate system: EPSG:32632, not EPSG:32633"),
        ({"crs": None}, "a coordinate system in one of both alone: the label has none"),
    ],
)
def test_another_grid_is_an_error_that_names_both(tmp_path, more, words):
    _, labels = write_scene(tmp_path)
    write_raster(tmp_path / "a_mask.tif", labels[None], **more)
    with pytest.raises(DatasetError, match=rf"a_mask\.tif: the label of .*a\.tif has {words}"):
        records_of(describe(tmp_path))


def test_another_size_or_more_bands_are_errors(tmp_path):
    pixels, labels = write_scene(tmp_path)
    for stored, words in ((labels[None, 1:], "210x149 pixels"), (pixels, "3 bands where one")):
        write_raster(tmp_path / "a_mask.tif", stored)
        with pytest.raises(DatasetError, match=rf"a_mask\.tif: the label of .*a\.tif has {words}"):
            records_of(describe(tmp_path))


def test_patterns_pair_files_by_what_the_star_stands_for(tmp_path):
    pixels, labels = scene()
    for i in (1, 2, 10):
        write_raster(tmp_path / f"images/t{i}.tif", pixels)
        write_raster(tmp_path / f"masks/t{i}_mask.tif", labels[None])
    path = describe(tmp_path, rasters="images/t*.tif", labels="masks/t*_mask.tif")
    for record in records_of(path)["train"]:
        names = [split_name(record[key])[0] for key in ("file_name", "sem_seg_file_name")]
        assert re.search(r"t(\d+)\.tif", names[0])[1] == re.search(r"t(\d+)_mask", names[1])[1]
    (tmp_path / "masks/t2_mask.tif").unlink()
    with pytest.raises(DatasetError, match=r"t2\.tif: nothing that masks/t\*_mask\.tif matches"):
        records_of(path)
    with pytest.raises(DatasetError, match=r"b\*\.tif: no file matches"):
        records_of(describe(tmp_path, rasters="b*.tif", labels="masks/t*_mask.tif"))


def test_windows_of_rasters_of_the_same_name_have_ids_of_their_own(tmp_path):
    for folder in ("north", "south"):
        write_scene(tmp_path / folder)
    files = {
        kind: [f"{folder}/{name}" for folder in ("north", "south")]
        for kind, name in (("rasters", "a.tif"), ("labels", "a_mask.tif"))
    }
    records = records_of(describe(tmp_path, **files))
    ids = [record["image_id"] for part in records.values() for record in part]
    assert ids[0] == "north/a_0_0"
    assert len(set(ids)) == len(ids) > 20


def test_rasters_of_several_frames_or_rotated_for_display_are_refused(tmp_path):
    pixels, labels = write_scene(tmp_path)
    picture = Image.fromarray(pixels.transpose(1, 2, 0))
    gray = picture.convert("L")
    gray.save(tmp_path / "a.gif", save_all=True, append_images=[gray.rotate(90), gray.rotate(180)])
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "a.jpg", exif=exif)
    picture.save(tmp_path / "b.tif", exif=exif)
    Image.fromarray(labels).save(tmp_path / "a.png")
    for name, words in (("a.gif", "3 "), ("a.jpg", "an EXIF tag rotates"), ("b.tif", "an EXIF")):
        with pytest.raises(DatasetError, match=rf"{name}: .*{words}"):
            records_of(describe(tmp_path, rasters=name, labels="a.png"))


def test_rasters_of_their_own_validate(tmp_path):
    write_scene(tmp_path)
    write_scene(tmp_path / "b")
    val = {"rasters": "b/a.tif", "labels": "b/a_mask.tif"}
    records = records_of(describe(tmp_path, val=val))
    for split, file in (("train", tmp_path / "a.tif"), ("val", tmp_path / "b/a.tif")):
        assert {split_name(r["file_name"])[0] for r in records[split]} == {str(file)}
        assert sum(r["height"] * r["width"] for r in records[split]) == 150 * 210


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"windows": {"size": 5}}, "windows.size is 5"),
        ({"windows": {"sise": 64}}, "windows: unknown key 'sise'"),
        ({"windows": {"class_balanced": 1}}, "windows.class_balanced is 1"),
        ({"split": {"val_columns": 1.5}}, "split.val_columns is 1.5"),
        ({"split": {"val_fraction": 0.2}}, "split: unknown key 'val_fraction'"),
        ({"split": {"val_rectangle": [1, 2, 3]}}, r"split.val_rectangle is \[1, 2, 3\]"),
        ({"rasters": None}, "windows belongs to rasters, which are missing"),
        ({"images": "images"}, "images does not belong to rasters"),
        ({"task": "instance"}, "rasters are trained on with task semantic, not instance"),
        ({"rasters": "*/a.tif"}, r"rasters: '\*/a\.tif': a pattern has one"),
        ({"rasters": []}, "rasters should be a file"),
        ({"val": {"rasters": "b.tif"}}, "val should have rasters and labels"),
    ],
)
def test_wrong_keys_are_named(tmp_path, change, words):
    with pytest.raises(DatasetError, match=rf"my\.yaml: {words}"):
        register_custom_dataset(describe(tmp_path, **change))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rasters": ["c.tif"]}, r"c\.tif: no such file"),
        ({"rasters": ["a.tif", "a.tif"]}, "2 rasters and 1 labels"),
        ({"split": {"val_rectangle": [200, 0, 11, 5]}}, r"a\.tif: split\.val_rectangle .* over"),
        ({"split": {"val_columns": 0.001}}, r"a\.tif: split: the share of 210 columns"),
    ],
)
def test_files_that_do_not_fit_are_named(tmp_path, change, words):
    write_scene(tmp_path)
    with pytest.raises(DatasetError, match=words):
        records_of(describe(tmp_path, **change))


def test_an_unreadable_raster_is_named(tmp_path):
    write_scene(tmp_path)
    (tmp_path / "a.tif").write_bytes(b"II*\0 no raster")
    with pytest.raises(DatasetError, match=r"a\.tif: not a readable raster"):
        Dataset.get(register_custom_dataset(describe(tmp_path))["train"])


def test_a_shapefile_without_its_reader_names_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr("seg_plugins.io.vectors.importlib.util.find_spec", lambda name: None)
    from seg_plugins.io.vectors import read_features

    with pytest.raises(DatasetError, match=r"a\.shp: .*fiona.*ogr2ogr a\.geojson a\.shp"):
        read_features(str(tmp_path / "a.shp"), "")


def test_what_fiona_gives_of_a_shapefile_is_read(tmp_path, monkeypatch):
    """By a stand-in with fiona's documented interface, where the package is not installed."""
    import contextlib
    import sys
    import types

    from seg_plugins.io.vectors import read_features

    ring = [(400_000 + x, 5_800_000 - y, 7.0) for x, y in ((0, 0), (10, 0), (10, 10))]
    geometry = types.SimpleNamespace(
        __geo_interface__={"type": "Polygon", "coordinates": [[*ring, ring[0]]]}
    )

    @contextlib.contextmanager
    def opened(name):
        feature = {"id": "0", "geometry": geometry, "properties": {"class": "tree"}}
        yield Source([feature])

    class Source(list):
        crs_wkt = PLACE["crs"]

    module = types.ModuleType("fiona")
    module.open, module.errors = opened, types.SimpleNamespace(FionaError=OSError)
    module.__spec__ = types.SimpleNamespace()
    monkeypatch.setitem(sys.modules, "fiona", module)
    found = read_features(str(tmp_path / "a.shp"), rasterio.crs.CRS.from_epsg(32633).to_wkt())
    assert found.properties == [{"class": "tree"}]
    assert found.bounds.tolist() == [[400_000, 5_799_990, 400_010, 5_800_000]]
