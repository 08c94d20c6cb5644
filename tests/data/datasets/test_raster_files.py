"""Files and descriptions of rasters that fit together, or are named."""

from __future__ import annotations

import re

from seg_plugins.data import Dataset, DatasetError, register_custom_dataset
from seg_plugins.io.window_names import split_name

import pytest

rasterio = pytest.importorskip("rasterio")
from affine import Affine  # noqa: E402
from PIL import Image  # noqa: E402
from raster_scenes import (  # noqa: E402
    describe,
    records_of,
    scene,
    write_raster,
    write_scene,
)


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
