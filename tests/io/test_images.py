"""Pixels and labels come through as stored."""

from __future__ import annotations

import zlib

from seg_plugins.data import DatasetError
from seg_plugins.io.images import open_image, read_image, read_label
from seg_plugins.io.label_encoding import LabelEncoding

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


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_exif_orientation_is_turned_upright(tmp_path, name):
    path = str(tmp_path / name)
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


@pytest.mark.parametrize("options", [{}, {"compress_level": 1}, {"transparency": (1, 2, 3)}])
def test_png_equals_detectron2(tmp_path, options):
    path = str(tmp_path / "a.png")
    Image.fromarray(PICTURE).save(path, **options)
    for image_format in ("BGR", "RGB"):
        found = read_image(path, image_format)
        assert np.array_equal(found, detectron2_read_image(path, image_format))
    assert np.array_equal(read_label(path, color=True), PICTURE)


def test_a_damaged_png_is_an_error_whoever_decodes_it(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(PICTURE).save(path)
    whole = path.read_bytes()
    for cut in range(60, len(whole) - 30, 97):
        path.write_bytes(whole[:cut])
        with pytest.raises(DatasetError, match=r"a\.png: (damaged|not a readable) image"):
            read_image(str(path))
    # Sound checksums around damaged pixels.
    at = whole.index(b"IDAT")
    data = whole[at + 4 : at + 4 + int.from_bytes(whole[at - 4 : at], "big")]
    for damaged in (data[: len(data) // 2], data[:100] + bytes(40) + data[140:]):
        chunk = b"IDAT" + damaged
        chunk = len(damaged).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
        path.write_bytes(whole[: at - 4] + chunk + whole[-12:])
        with pytest.raises(DatasetError, match=r"a\.png: damaged image"):
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


def test_a_color_picture_as_label_is_refused_with_the_fix(tmp_path):
    path = str(tmp_path / "a.png")
    Image.fromarray(PICTURE).save(path)
    with pytest.raises(DatasetError, match=r"a\.png: a RGB picture.*labels: colours"):
        read_label(path)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_equal_channels_are_ids(tmp_path, mode):
    path = str(tmp_path / "a.png")
    picture = Image.fromarray(IDS.astype(np.uint8)).convert(mode)
    picture.save(path)
    assert np.array_equal(read_label(path), IDS)
    if mode != "RGB":  # what only the alpha channel tells would be lost
        picture.putpixel((0, 0), (0,) * len(mode))
        picture.save(path)
        with pytest.raises(DatasetError, match=f"a {mode} picture"):
            read_label(path)


def test_equal_channels_of_16_bits_are_ids(tmp_path):
    path = str(tmp_path / "a.png")
    cv2.imwrite(path, np.repeat((IDS * 257).astype(np.uint16)[:, :, None], 3, axis=2))
    assert np.array_equal(read_label(path), IDS * 257)


@pytest.mark.parametrize("color", [False, True])
@pytest.mark.parametrize(("kind", "lossless"), [("JPEG", None), ("WEBP", False), ("WEBP", True)])
def test_lossy_labels_are_refused_whatever_their_name(tmp_path, kind, lossless, color):
    path = str(tmp_path / "a.png")
    ids = np.zeros((8, 8, 3), np.uint8)
    Image.fromarray(ids).save(path, format=kind, **({} if lossless is None else {"lossless": True}
                                                    if lossless else {"quality": 80}))  # fmt: skip
    if lossless:
        assert not read_label(path, color=color).any()
        return
    with pytest.raises(DatasetError, match=rf"a\.png: a label stored as {kind}.*lossy"):
        read_label(path, color=color)


def test_arrays_and_matrices_are_told_by_their_content(tmp_path):
    np.save(tmp_path / "a.npy", IDS)
    (tmp_path / "a.npy").rename(tmp_path / "a.png")
    (tmp_path / "b.regions").write_text("0 1 2\r\n3 200 255\r\n")
    Image.fromarray(IDS.astype(np.uint8)).save(tmp_path / "c.txt", format="PNG")
    for name in ("a.png", "b.regions", "c.txt"):
        assert np.array_equal(read_label(str(tmp_path / name)), IDS)


def test_animated_pictures_are_refused(tmp_path):
    first, second = (Image.new("RGB", (4, 3), (i, 0, 0)) for i in (10, 200))
    for name in ("a.gif", "a.png", "a.webp"):
        first.save(tmp_path / name, save_all=True, append_images=[second])
        with pytest.raises(DatasetError, match="2 pages where one picture is expected"):
            read_image(str(tmp_path / name))


def test_images_up_to_the_limit_are_opened_without_a_word(tmp_path, monkeypatch, recwarn):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 89_478_485)  # Pillow's own
    path = str(tmp_path / "a.png")
    Image.new("1", (1, 1)).save(path)
    content = bytearray((tmp_path / "a.png").read_bytes())
    content[16:24] = (14000).to_bytes(4, "big") * 2  # IHDR
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(bytes(content))
    with open_image(path) as image:
        assert image.size == (14000, 14000)
    assert not recwarn
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # somebody's own
    with pytest.raises(DatasetError, match=r"a\.png: .*MAX_IMAGE_PIXELS is 1000, the limit here 3"):
        open_image(path)


def test_the_limit_of_pixels_is_the_packages_own_key(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 89_478_485)
    path = str(tmp_path / "a.png")
    Image.new("L", (40, 30)).save(path)
    for limit in ("1199", "500"):  # Pillow itself refuses twice its limit
        monkeypatch.setenv("SEG_PLUGINS_MAX_PIXELS", limit)
        with pytest.raises(DatasetError, match=f"{limit}.*SEG_PLUGINS_MAX_PIXELS sets another"):
            open_image(path)
    monkeypatch.setenv("SEG_PLUGINS_MAX_PIXELS", "1200")  # what the message advises
    with open_image(path) as image:
        assert image.size == (40, 30)
    monkeypatch.setenv("SEG_PLUGINS_MAX_PIXELS", "many")
    with pytest.raises(DatasetError, match="SEG_PLUGINS_MAX_PIXELS is 'many': give pixels"):
        open_image(path)
    monkeypatch.delenv("SEG_PLUGINS_MAX_PIXELS")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # somebody wants no limit of Pillow's
    with open_image(path):
        assert Image.MAX_IMAGE_PIXELS is None


def test_colors_become_ids(tmp_path):
    path = str(tmp_path / "a.png")
    Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6], [9, 9, 9]]], np.uint8)).save(path)
    colors = (((4, 5, 6), 0), ((1, 2, 3), 1))
    ignoring = LabelEncoding(colors=colors, ignore_label=7, ignore_unlisted=True)
    assert ignoring(path).tolist() == [[1, 0, 7]]
    expected = r"a\.png: the colour \[9, 9, 9\] \(1 pixels\) stands for none of the 2 classes"
    with pytest.raises(DatasetError, match=expected):
        LabelEncoding(colors=colors)(path)


def test_values_become_ids_and_the_rest_is_ignored():
    encoding = LabelEncoding(values=((7, 0), (300, 1)), ignore_unlisted=True)
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
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    path.write_bytes(bytes(content))
    with pytest.raises(DatasetError, match=r"a\.png"):
        read_image(str(path))
