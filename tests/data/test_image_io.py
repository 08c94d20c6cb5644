"""Pixels and labels come through as stored."""

from __future__ import annotations

from seg_plugins.data import DatasetError
from seg_plugins.data.image_io import read_image, read_label
from seg_plugins.data.label_encoding import LabelEncoding

import cv2
import numpy as np
import pytest
from detectron2.data.detection_utils import read_image as detectron2_read_image
from PIL import Image

RNG = np.random.default_rng(0)
PICTURE = cv2.resize(RNG.integers(0, 256, (12, 16, 3)).astype(np.uint8), (67, 45))


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_equals_detectron2(tmp_path, subsampling, progressive):
    path = str(tmp_path / "a.jpg")
    Image.fromarray(PICTURE).save(
        path, quality=90, subsampling=subsampling, progressive=progressive
    )
    for image_format in ("BGR", "RGB"):
        assert np.array_equal(
            read_image(path, image_format), detectron2_read_image(path, image_format)
        )


def test_jpeg_with_exif_orientation_is_turned_upright(tmp_path):
    path = str(tmp_path / "a.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PICTURE).save(path, exif=exif)
    assert read_image(path).shape == (67, 45, 3)
    assert np.array_equal(read_image(path), detectron2_read_image(path, "BGR"))


def test_a_truncated_jpeg_is_an_error_not_grey(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(PICTURE).save(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DatasetError, match=r"a\.jpg: damaged image"):
        read_image(str(path))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_raw_keeps_depth_and_channels_of_png(tmp_path, channels, dtype):
    pixels = RNG.integers(0, np.iinfo(dtype).max, (5, 7, channels)).astype(dtype)
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), pixels[:, :, [2, 1, 0, 3][:channels]] if channels > 1 else pixels)
    assert np.array_equal(read_image(str(path), "raw"), pixels)


def test_raw_keeps_float_tiff_and_many_channels(tmp_path):
    pixels = RNG.normal(size=(5, 7)).astype(np.float32)
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    assert np.array_equal(read_image(str(tmp_path / "a.tif"), "raw")[:, :, 0], pixels)
    bands = RNG.normal(size=(5, 7, 6)).astype(np.float32)
    np.save(tmp_path / "a.npy", bands)
    assert np.array_equal(read_image(str(tmp_path / "a.npy"), "raw"), bands)


IDS = np.array([[0, 1, 2], [3, 200, 255]])


def test_labels_of_every_kind_give_their_ids(tmp_path):
    grey, palette, deep = (tmp_path / f"{kind}.png" for kind in ("grey", "palette", "deep"))
    Image.fromarray(IDS.astype(np.uint8)).save(grey)
    indexed = Image.fromarray(IDS.astype(np.uint8), mode="P")
    indexed.putpalette(RNG.integers(0, 256, 768).tolist())
    indexed.save(palette)
    cv2.imwrite(str(deep), (IDS * 257).astype(np.uint16))
    np.save(tmp_path / "a.npy", IDS)
    assert np.array_equal(read_label(str(grey)), IDS)
    assert np.array_equal(read_label(str(palette)), IDS)
    assert np.array_equal(read_label(str(deep)), IDS * 257)
    assert np.array_equal(read_label(str(tmp_path / "a.npy")), IDS)


def test_a_colour_picture_as_label_is_refused_with_the_fix(tmp_path):
    path = str(tmp_path / "a.png")
    Image.fromarray(PICTURE).save(path)
    with pytest.raises(DatasetError, match=r"a\.png: a RGB picture.*labels: colours"):
        read_label(path)


def test_colours_become_ids(tmp_path):
    path = str(tmp_path / "a.png")
    Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6], [9, 9, 9]]], np.uint8)).save(path)
    colours = (((4, 5, 6), 0), ((1, 2, 3), 1))
    assert LabelEncoding(colours=colours, ignore_label=7)(path).tolist() == [[1, 0, 7]]
    with pytest.raises(DatasetError, match="colour #090909 stands for no class"):
        LabelEncoding(colours=colours, strict=True)(path)


def test_values_become_ids_and_the_rest_is_ignored():
    encoding = LabelEncoding(values=((7, 0), (300, 1)), ignore_label=255)
    for dtype in (np.uint16, np.int32, np.int64):
        stored = np.array([[7, 300, 8, 301]], dtype)
        assert encoding.decode(stored).tolist() == [[0, 1, 255, 255]]
    assert encoding.decode(np.array([[-1, 7]], np.int16)).tolist() == [[255, 0]]
    assert encoding.decode(np.array([[7, 255]], np.uint8)).tolist() == [[0, 255]]


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n"])
def test_unreadable_files_are_named(tmp_path, content):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    for read in (read_image, read_label):
        with pytest.raises(DatasetError, match=r"a\.png"):
            read(str(path))
    with pytest.raises(DatasetError, match=r"b\.png: no such file"):
        read_image(str(tmp_path / "b.png"))


def test_oversized_images_are_refused_from_the_header(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(PICTURE).save(path)
    content = bytearray(path.read_bytes())
    content[16:24] = (60000).to_bytes(4, "big") * 2  # IHDR: 60000x60000
    import zlib

    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    path.write_bytes(bytes(content))
    with pytest.raises(DatasetError, match=r"a\.png"):
        read_image(str(path))
