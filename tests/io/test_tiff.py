"""TIFF that Pillow does not read."""

from __future__ import annotations

import importlib.util

from seg_plugins.data import DatasetError, SemanticMapper
from seg_plugins.io.images import read_image, read_label, stored_rotated
from seg_plugins.io.tiff import read_tiff

import numpy as np
import pytest

BANDS = np.random.default_rng(0).integers(0, 65535, (6, 8, 7)).astype(np.uint16)


@pytest.mark.parametrize("pixels", [BANDS, BANDS[:, :, :3].astype(np.float32) / 3])
@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_bands_come_through_as_stored(tmp_path, pixels, planes, order, compression):
    tifffile = pytest.importorskip("tifffile")
    path = str(tmp_path / "a.tif")
    stored = pixels if planes == "contig" else np.moveaxis(pixels, 2, 0)
    tifffile.imwrite(
        path, stored, photometric="minisblack", planarconfig=planes, byteorder=order,
        compression=compression,
    )  # fmt: skip
    found = read_image(path, "raw")
    assert np.array_equal(found, pixels)
    assert found.dtype.isnative
    assert not stored_rotated(path)
    sample = SemanticMapper(is_train=False, image_format="raw")({"file_name": path})
    assert sample["image"].shape == (pixels.shape[2], 6, 8)
    with pytest.raises(DatasetError, match="FORMAT raw"):
        read_image(path, "BGR")
    with pytest.raises(DatasetError, match="more than the limit of 47"):
        read_tiff(path, 47)


@pytest.mark.parametrize("name", ["a.gtif", "a.TIF", "a", "a.jpg"])
def test_a_tiff_is_told_by_its_content(tmp_path, name, caplog):
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / name, BANDS, photometric="minisblack", planarconfig="contig")
    assert np.array_equal(read_image(str(tmp_path / name), "raw"), BANDS)
    assert not caplog.records  # Pillow's error about the file that is then read


@pytest.mark.parametrize("bands", [1, 3, 7])
def test_pages_beyond_the_first_are_not_dropped(tmp_path, bands):
    tifffile = pytest.importorskip("tifffile")
    path, stack = str(tmp_path / "a.tif"), str(tmp_path / "a.npy")
    pages = BANDS[:, :, :bands].astype(np.uint8).squeeze()
    with tifffile.TiffWriter(path) as file:
        for _ in range(3):
            file.write(pages, photometric="rgb" if bands == 3 else "minisblack",
                       planarconfig="contig" if bands > 1 else None)  # fmt: skip
    for read in (lambda: read_image(path, "raw"), lambda: read_label(path))[: 1 + (bands < 7)]:
        with pytest.raises(DatasetError, match=r"a\.tif: 3 pages where one.*one \.npy file"):
            read()
    # What the message advises: the pages as channels.
    np.save(stack, np.stack([pages.reshape(6, 8, bands)[..., 0]] * 3, axis=2))
    assert read_image(stack, "raw").shape == (6, 8, 3)


@pytest.mark.parametrize("bands", [1, 7])
def test_overviews_and_masks_are_no_pages(tmp_path, bands):
    tifffile = pytest.importorskip("tifffile")
    path = str(tmp_path / "a.tif")
    pixels = BANDS[:, :, :bands]
    with tifffile.TiffWriter(path) as file:
        for kind, step in ((0, 1), (1, 2), (4, 1)):
            page = pixels[::step, ::step].squeeze() if kind != 4 else np.ones((6, 8), bool)
            file.write(page, subfiletype=kind, photometric="minisblack",
                       planarconfig="contig" if page.ndim == 3 else None)  # fmt: skip
    assert np.array_equal(read_image(path, "raw"), pixels)


def test_damaged_tiffs_are_errors_that_name_the_file(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, BANDS, photometric="minisblack", planarconfig="contig")
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(200):
        content = bytearray(whole)
        for place in rng.integers(0, len(whole), 20):
            content[place] = rng.integers(256)
        path.write_bytes(content[: rng.integers(8, len(whole))])
        try:
            read_image(str(path), "raw")
        except DatasetError as error:
            message = str(error)
        else:
            message = "a.tif"
        assert "a.tif" in message


def test_a_small_file_that_claims_gigabytes_is_refused(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, BANDS, photometric="minisblack", planarconfig="contig")
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages.first.tags["ImageWidth"].overwrite(10_000)
        file.pages.first.tags["ImageLength"].overwrite(20_000)
    with pytest.raises(DatasetError, match=r"a\.tif: 2800000000 bytes of pixels in so small"):
        read_image(str(path), "raw")


def test_without_tifffile_the_message_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "a.tif").write_bytes(b"II*\0 but nothing else")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DatasetError, match=r"a\.tif: .*pip install seg_plugins\[geo\]"):
        read_image(str(tmp_path / "a.tif"), "raw")
