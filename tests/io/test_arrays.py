"""Bare arrays: what is an image or a label comes through, the rest is told by name."""

from __future__ import annotations

from seg_plugins.data import DatasetError, SemanticMapper
from seg_plugins.data.augmentations import Crop, Flip, ResizeShortestEdge, Turn
from seg_plugins.data.elastic import ElasticDeformation
from seg_plugins.data.photometric import Blur, ColorJitter, Noise
from seg_plugins.io.images import read_image, read_label

import numpy as np
import pytest
from PIL import Image


@pytest.mark.parametrize("dtype", ["?", "u1", "u2", "i2", "i8", "f4", "f8", ">f4"])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_every_type_passes_every_augmentation(tmp_path, dtype, channels):
    pixels = np.random.default_rng(0).integers(0, 200, (30, 40, channels)).astype(dtype)
    np.save(tmp_path / "a.npy", pixels)
    np.save(tmp_path / "l.npy", np.arange(1200).reshape(30, 40) % 3)
    record = {
        "file_name": str(tmp_path / "a.npy"),
        "sem_seg_file_name": str(tmp_path / "l.npy"),
    }
    assert np.array_equal(read_image(record["file_name"], "raw"), pixels)
    mapper = SemanticMapper(
        is_train=True,
        augmentations=[ResizeShortestEdge((20,), 100), Crop((15, 17)), Flip(), Turn()],
        elastic=ElasticDeformation(3.0),
        photometric=[ColorJitter(), Blur(2.0), Noise(3.0)],
        image_format="raw",
    )
    for seed in range(4):
        sample = mapper(record, np.random.default_rng(seed))
        assert sample["image"].shape == (channels, *sample["sem_seg"].shape)
        assert set(sample["sem_seg"].unique().tolist()) <= {0, 1, 2}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((4, 5), 0.5), "fractions"),
        (np.array([[1, np.nan, np.inf]]), "2 pixels are NaN or infinite where class ids"),
        (np.full((4, 5), 10**12), "class ids are expected"),
        (np.full((4, 5), 70000), "class ids are expected"),
        (np.zeros((4, 5, 2), np.uint8), r"shape \(4, 5, 2\)"),
        (np.zeros(5, np.uint8), r"shape \(5,\)"),
        (np.zeros((0, 5)), "not an array of numbers"),
        (np.array([["a"]]), "not an array of numbers"),
        (np.array([[1j]]), "not an array of numbers"),
    ],
)
def test_arrays_that_are_no_label(tmp_path, values, message):
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(DatasetError, match=rf"a\.npy: .*{message}"):
        read_label(str(tmp_path / "a.npy"))


def test_a_header_alone_claims_no_memory(tmp_path):
    with (tmp_path / "a.npy").open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**6)}
        np.lib.format.write_array_header_1_0(file, header)
    with pytest.raises(DatasetError, match=r"a\.npy: not a readable array"):
        read_image(str(tmp_path / "a.npy"), "raw")


@pytest.mark.parametrize("shape", [(5,), (2, 3, 4, 5), (2, 3, 600)])
def test_arrays_that_are_no_image(tmp_path, shape):
    np.save(tmp_path / "a.npy", np.zeros(shape, np.uint8))
    with pytest.raises(DatasetError, match=r"a\.npy: \d+ (axes|channels)"):
        read_image(str(tmp_path / "a.npy"), "raw")


def test_eight_bit_arrays_are_pictures(tmp_path):
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    np.save(tmp_path / "a.npy", pixels)
    np.save(tmp_path / "g.npy", pixels[:, :, 0])
    assert np.array_equal(read_image(str(tmp_path / "a.npy"), "BGR"), pixels[:, :, ::-1])
    grey = read_image(str(tmp_path / "g.npy"), "RGB")
    assert np.array_equal(grey, np.repeat(pixels[:, :, :1], 3, axis=2))


@pytest.mark.parametrize("name", ["a.npy", "a.png", "a.tif"])
def test_deep_pictures_are_not_cut_off_at_255(tmp_path, name):
    values = (np.arange(6).reshape(2, 3) * 1000).astype(np.uint16)
    path = tmp_path / name
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        Image.fromarray(values).save(path)
    for image_format in ("BGR", "RGB", "L"):
        with pytest.raises(DatasetError, match=r"INPUT\.FORMAT raw"):
            read_image(str(path), image_format)
    assert np.array_equal(read_image(str(path), "raw")[:, :, 0], values)


@pytest.mark.parametrize("content", ["", "1 2\n3\n", "1 99999999999999999999\n", "a b\n"])
def test_text_that_is_no_matrix(tmp_path, content):
    (tmp_path / "a.txt").write_text(content)
    with pytest.raises(DatasetError, match=r"a\.txt"):
        read_label(str(tmp_path / "a.txt"))
