"""A TIFF gives the same pixels by windows as read at once, however its values are stored."""

from __future__ import annotations

from seg_plugins.data import DatasetError
from seg_plugins.io.images import read_image
from seg_plugins.io.rasters import open_raster, read_window
from seg_plugins.prediction.raster_files import check_raster

import numpy as np
import pytest
import tifffile
from PIL import Image
from stubs import predictor
from torch import nn

pytest.importorskip("rasterio")
GREY = np.random.default_rng(0).integers(0, 256, (9, 17)).astype(np.uint8)
COLOR = np.random.default_rng(1).integers(0, 256, (9, 17, 3)).astype(np.uint8)


def palette(path):
    image = Image.fromarray(GREY % 7)
    image.putpalette(COLOR.ravel()[:21].tolist())
    image.save(path)


KINDS = {
    "grey": lambda path: Image.fromarray(GREY).save(path),
    "white is 0": lambda path: tifffile.imwrite(path, GREY, photometric="miniswhite"),
    "palette": palette,
    "1 bit": lambda path: Image.fromarray(GREY > 100).save(path),
    "1 bit, white is 0": lambda path: tifffile.imwrite(path, GREY > 9, photometric="miniswhite"),
    "16 bits": lambda path: tifffile.imwrite(path, GREY.astype(np.uint16) * 200),
    "float": lambda path: tifffile.imwrite(path, GREY.astype(np.float32) / 3),
    "colours": lambda path: tifffile.imwrite(path, COLOR, photometric="rgb"),
    "colours by JPEG": lambda path: Image.fromarray(COLOR).save(path, compression="jpeg"),
}


def by_window(path, image_format):
    """(H, W, C) as the network gets it."""
    with open_raster(path) as raster:
        check_raster(raster, image_format)
        pixels = read_window(raster, (0, raster.height), (0, raster.width), image_format)
    return predictor(nn.Identity(), image_format=image_format).preparation.from_array(pixels).pixels


@pytest.mark.parametrize("image_format", ["RGB", "BGR", "L", "raw"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_pixels(tmp_path, kind, image_format):
    path = tmp_path / "a.tif"
    KINDS[kind](path)
    if kind in ("16 bits", "float") and image_format != "raw":
        for read in (
            lambda: by_window(path, image_format),
            lambda: read_image(str(path), image_format),
        ):
            with pytest.raises(DatasetError, match=r"INPUT\.FORMAT"):
                read()
        return
    expected = read_image(str(path), image_format)
    found = by_window(path, image_format)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert np.array_equal(found, expected)


def test_what_windows_would_show_otherwise_is_refused(tmp_path):
    image = Image.fromarray(COLOR)
    exif = image.getexif()
    exif[274] = 6
    image.save(tmp_path / "turned.tif", exif=exif)
    with pytest.raises(DatasetError, match=r"turned\.tif: an EXIF tag rotates it.*--window"):
        by_window(tmp_path / "turned.tif", "RGB")
    image.convert("CMYK").save(tmp_path / "print.tif")
    with pytest.raises(DatasetError, match=r"print\.tif: colours of print"):
        by_window(tmp_path / "print.tif", "RGB")


def test_signed_bytes_keep_their_sign(tmp_path):
    values = GREY.astype(np.int16) - 128
    tifffile.imwrite(tmp_path / "a.tif", values.astype(np.int8))
    assert np.array_equal(read_image(str(tmp_path / "a.tif"), "raw")[..., 0], values)
    with pytest.raises(DatasetError, match="values from -128 to 127"):
        read_image(str(tmp_path / "a.tif"), "RGB")
