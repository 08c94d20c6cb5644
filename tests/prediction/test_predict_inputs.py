"""Finding inputs, and bringing images to what a model takes."""

from __future__ import annotations

from seg_plugins import get_cfg
from seg_plugins.data import DatasetError, SemanticMapper
from seg_plugins.prediction.inputs import Preparation, find_sources

import numpy as np
import pytest
import torch
from PIL import Image


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def found(inputs, output):
    return {source.path.name: source.name for source in find_sources(inputs, output)}


def test_a_folder_gives_its_images_and_videos_to_any_depth(tmp_path):
    touch(tmp_path, "a.JPG", "b/c.png", "b/d.mp4", "notes.txt", "scan.nii.gz")
    assert found([str(tmp_path)], tmp_path / "out") == {
        "a.JPG": "a", "c.png": "b/c", "d.mp4": "b/d", "scan.nii.gz": "scan",
    }  # fmt: skip


def test_a_pattern_gives_names_below_its_fixed_part(tmp_path):
    touch(tmp_path, "x/1/a.png", "x/2/a.png", "y/3.png")
    sources = find_sources([str(tmp_path / "x" / "**" / "*.png")], tmp_path / "out")
    assert [source.name for source in sources] == ["1/a", "2/a"]


def test_names_that_differ_in_the_suffix_alone_keep_it(tmp_path):
    touch(tmp_path, "a.jpg", "a.png", "b.png")
    names = found([str(tmp_path)], tmp_path / "out")
    assert names == {"a.jpg": "a.jpg", "a.png": "a.png", "b.png": "b"}


def test_results_of_an_earlier_run_are_no_inputs(tmp_path):
    touch(tmp_path, "a.png", "out/overlay/a.png")
    assert list(found([str(tmp_path)], tmp_path / "out")) == ["a.png"]


def test_an_input_that_names_nothing_is_an_error(tmp_path):
    with pytest.raises(DatasetError, match=r"missing\.png: no such file"):
        find_sources([str(tmp_path / "missing.png")], tmp_path)


def config(**inputs):
    cfg = get_cfg()
    for key, value in inputs.items():
        cfg.INPUT[key] = value
    return cfg


@pytest.mark.parametrize("image_format", ["RGB", "BGR", "L"])
def test_a_file_becomes_what_the_mapper_makes_of_it(tmp_path, image_format):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 50, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    cfg = config(FORMAT=image_format, MIN_SIZE_TEST=45, MAX_SIZE_TEST=1000)
    expected = SemanticMapper(cfg, is_train=False)({"file_name": str(tmp_path / "a.png")})["image"]
    preparation = Preparation(cfg)
    assert expected.shape[-2:] == (45, 75)
    for picture in (preparation.read(tmp_path / "a.png"), preparation.from_array(pixels)):
        assert torch.equal(preparation.tensor(picture.pixels), expected)
    if image_format != "L":
        assert np.array_equal(preparation.read(tmp_path / "a.png").image, pixels)


def test_arrays_of_opencv_say_so():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 3), np.uint8)
    preparation = Preparation(config(FORMAT="RGB"))
    picture = preparation.from_array(pixels[:, :, ::-1], "BGR")
    assert np.array_equal(picture.image, pixels)
    assert np.array_equal(picture.pixels, pixels)


def test_grey_and_transparent_arrays_are_images():
    preparation = Preparation(config())
    assert preparation.from_array(np.zeros((3, 4), np.uint8)).pixels.shape == (3, 4, 3)
    assert preparation.from_array(np.zeros((3, 4, 4), np.uint8)).image.shape == (3, 4, 3)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(3, np.uint8), r"got shape \(3,\)"),
        (np.zeros((3, 0, 3), np.uint8), "got shape"),
        (np.zeros((3, 4, 3), np.float32), "takes uint8 .* got float32"),
        (np.zeros((3, 4, 7), np.uint8), r"got uint8 of shape \(3, 4, 7\)"),
    ],
)
def test_what_is_no_image_is_an_error(array, message):
    with pytest.raises(ValueError, match=message):
        Preparation(config()).from_array(array)


def test_raw_images_keep_depth_and_channels():
    values = np.arange(2 * 3 * 5, dtype=np.uint16).reshape(2, 3, 5) * 1000
    preparation = Preparation(config(FORMAT="raw", MIN_SIZE_TEST=0))
    picture = preparation.from_array(values)
    assert torch.equal(
        preparation.tensor(picture.pixels), torch.from_numpy(values.astype("f4")).permute(2, 0, 1)
    )
    assert picture.image.dtype == np.uint8
    assert picture.image.shape == (2, 3, 3)


def test_an_array_in_an_unknown_order_is_an_error():
    with pytest.raises(ValueError, match="order is 'GBR'"):
        Preparation(config()).from_array(np.zeros((3, 4, 3), np.uint8), "GBR")
