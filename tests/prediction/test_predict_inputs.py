"""Finding inputs, and bringing images to what a model takes."""

from __future__ import annotations

import io

from seg_plugins import get_cfg
from seg_plugins.data import DatasetError, SemanticMapper
from seg_plugins.prediction.inputs import Preparation, find_sources

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps


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


def names_of(*inputs, output):
    return sorted(source.name for source in find_sources([str(path) for path in inputs], output))


def test_files_of_one_name_in_two_inputs_keep_their_folders(tmp_path, monkeypatch):
    touch(tmp_path, "a/x.png", "a/y.png", "b/x.png", "b/deep/x.png")
    out = tmp_path / "out"
    expected = ["a/x", "a/y", "b/deep/x", "b/x"]
    assert names_of(tmp_path / "a", tmp_path / "b", output=out) == expected
    assert names_of(tmp_path / "a/x.png", tmp_path / "b/x.png", output=out) == ["a/x", "b/x"]
    patterns = (tmp_path / "a" / "*.png", tmp_path / "b" / "*.png")
    assert names_of(*patterns, output=out) == ["a/x", "a/y", "b/x"]
    monkeypatch.chdir(tmp_path / "a")
    assert names_of(".", "../b", output=out) == expected
    # A file that two inputs name is one file.
    assert names_of("x.png", "./x.png", tmp_path / "a" / "x.png", output=out) == ["x"]


def test_a_suffix_that_is_kept_takes_no_other_files_name(tmp_path):
    touch(tmp_path, "a.jpg", "a.png", "a.jpg.png")
    names = found([str(tmp_path)], tmp_path / "out")
    assert names == {name: name for name in ("a.jpg", "a.png", "a.jpg.png")}


def test_what_is_left_out_is_counted(tmp_path, caplog):
    touch(tmp_path, "a.png", "b/notes.txt", "c.TXT", "d.dng", "b/._a.png", "LICENSE")
    assert list(found([str(tmp_path)], tmp_path / "out")) == ["a.png"]
    assert "5 files are no images or videos by their names" in caplog.text
    for part in ("2 .txt", "1 .dng", "1 hidden", "1 without suffix"):
        assert part in caplog.text
    assert list(found([str(tmp_path / "d.dng")], tmp_path / "out")) == ["d.dng"]


def test_folders_behind_links_are_searched_and_broken_links_are_inputs(tmp_path):
    touch(tmp_path, "data/a.png", "photos/b.png")
    (tmp_path / "photos" / "more").symlink_to(tmp_path / "data")
    (tmp_path / "photos" / "round").symlink_to(tmp_path / "photos")
    (tmp_path / "photos" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    names = found([str(tmp_path / "photos")], tmp_path / "out")
    assert names == {"a.png": "more/a", "b.png": "b", "gone.png": "gone"}


def in_memory(image, order):
    """A copy with the EXIF orientation, as a file would come from Pillow."""
    exif = Image.Exif()
    exif[0x0112] = order
    content = io.BytesIO()
    image.save(content, "PNG" if image.mode != "CMYK" else "TIFF", exif=exif)
    return Image.open(content)


@pytest.mark.parametrize("order", range(1, 9))
def test_pillow_images_are_turned_upright_once(tmp_path, order):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 5, 3), np.uint8)
    turned = in_memory(Image.fromarray(pixels), order)
    turned.save(tmp_path / "a.png", exif=turned.getexif())
    upright = np.asarray(ImageOps.exif_transpose(turned))
    assert (upright.shape != pixels.shape) == (order > 4)
    preparation = Preparation(config())
    forms = [preparation.read(tmp_path / "a.png"), preparation.from_pillow(turned),
             preparation.from_pillow(Image.open(tmp_path / "a.png").convert("RGB")),
             preparation.from_pillow(ImageOps.exif_transpose(turned))]  # fmt: skip
    for picture in forms:
        assert np.array_equal(picture.image, upright)
        assert np.array_equal(picture.pixels, upright[:, :, ::-1])


@pytest.mark.parametrize("image_format", ["BGR", "L", "raw"])
@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("RGB", ".jpg"), ("L", ".jpg"), ("CMYK", ".jpg"), ("L", ".png"), ("P", ".png"), ("1", ".png"),
     ("RGBA", ".png"), ("LA", ".png"), ("I;16", ".png"), ("F", ".tif"), ("P", ".gif")],
)  # fmt: skip
def test_pillow_images_of_any_mode_are_what_their_file_is(tmp_path, mode, suffix, image_format):
    rng = np.random.default_rng(0)
    if mode == "I;16":
        image = Image.fromarray(rng.integers(0, 65536, (6, 7), np.uint16))
    else:
        image = Image.fromarray(rng.integers(0, 256, (6, 7, 3), np.uint8)).convert(mode)
    path = tmp_path / f"a{suffix}"
    image.save(path)
    preparation = Preparation(config(FORMAT=image_format))
    results = []
    for read in (lambda: preparation.read(path), lambda: preparation.from_pillow(Image.open(path))):
        try:
            results.append(read())
        except DatasetError as error:
            results.append(str(error))
    if isinstance(results[0], str):
        assert results[0] == results[1]
        assert mode in ("I;16", "F")
        assert image_format != "raw"
    else:
        assert results[0].pixels.dtype == results[1].pixels.dtype
        assert np.array_equal(results[0].pixels, results[1].pixels)
        assert np.array_equal(results[0].image, results[1].image)


def test_sixteen_bit_colors_in_pillow_are_refused(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 65536, (3, 4, 3), np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    preparation = Preparation(config(FORMAT="raw"))
    assert np.array_equal(preparation.read(tmp_path / "a.png").pixels, pixels[:, :, ::-1])
    with pytest.raises(DatasetError, match=r"a\.png: 16-bit colours.*give the file's path"):
        preparation.from_pillow(Image.open(tmp_path / "a.png"))
