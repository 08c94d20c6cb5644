"""NIfTI files written here, field by field of the standard."""

from __future__ import annotations

import contextlib
import gzip
import struct
from pathlib import Path

from seg_plugins.data import DatasetError, SemanticMapper
from seg_plugins.io.images import read_image, read_label, stored_rotated
from seg_plugins.io.nifti import read_nifti

import numpy as np
import pytest

pytest.importorskip("nibabel", reason="reads NIfTI: the extra 'medical'")
VOLUME = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4) - 5


def nifti(values, code, *, order="<", slope=0.0, shift=0.0, sizes=None) -> bytes:
    """`values` (z, y, x) with the fields that matter."""
    header = bytearray(352)
    struct.pack_into(order + "i", header, 0, 348)
    sizes = sizes or (3, *values.shape[::-1], 1, 1, 1, 1)
    struct.pack_into(order + "8h", header, 40, *sizes)
    struct.pack_into(order + "2h", header, 70, code, 8 * values.itemsize)
    struct.pack_into(order + "3f", header, 108, 352, slope, shift)
    header[344:348] = b"n+1\0"
    return bytes(header) + values.astype(values.dtype.newbyteorder(order)).tobytes()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("code", "kind"), [(2, "u1"), (4, "i2"), (16, "f4"), (64, "f8")])
def test_values_come_through_as_stored(tmp_path, order, code, kind):
    values = np.abs(VOLUME).astype(kind)
    for name, pack in (("a.nii", bytes), ("a.nii.gz", gzip.compress)):
        (tmp_path / name).write_bytes(pack(nifti(values, code, order=order)))
        found = read_nifti(tmp_path / name)
        assert np.array_equal(found, values)
        assert found.dtype == np.dtype(kind)


def test_slope_and_shift(tmp_path):
    (tmp_path / "a.nii").write_bytes(nifti(VOLUME, 4, slope=2.0, shift=-1000.0))
    assert np.array_equal(read_nifti(tmp_path / "a.nii"), VOLUME * 2.0 - 1000)


@pytest.mark.parametrize("slope", [np.nan, np.inf, 0.0])
def test_a_slope_that_is_no_number_scales_nothing(tmp_path, slope):
    (tmp_path / "a.nii").write_bytes(nifti(VOLUME, 4, slope=slope, shift=np.nan))
    assert np.array_equal(read_nifti(tmp_path / "a.nii"), VOLUME)
    (tmp_path / "a.nii").write_bytes(nifti(VOLUME, 4, slope=2.0, shift=np.nan))
    with pytest.raises(DatasetError, match=r"a\.nii: .*scaled by 2\.0 and shifted by nan"):
        read_nifti(tmp_path / "a.nii")


@pytest.mark.parametrize("name", ["volume", "a.NII", "a.dat", "a.nii.gz"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_volume_is_told_by_its_content(tmp_path, name, pack):
    ids = np.array([[[0, 1, 2], [255, 1, 0]]], np.int64)
    (tmp_path / name).write_bytes(pack(nifti(ids, 1024)))
    assert read_label(str(tmp_path / name)).tolist() == ids[0].tolist()


def test_slices_are_channels_and_a_label_has_one(tmp_path):
    image, label, volume = (str(tmp_path / name) for name in ("i.nii.gz", "l.nii", "v.nii"))
    ids = np.array([[[0, 1, 2, 255]] * 3], np.float32)
    Path(image).write_bytes(gzip.compress(nifti(VOLUME, 4)))
    Path(label).write_bytes(nifti(ids, 16, sizes=(2, 4, 3, 0, 0, 0, 0, 0)))
    Path(volume).write_bytes(nifti(VOLUME, 4))
    assert np.array_equal(read_image(image, "raw"), VOLUME.transpose(1, 2, 0))
    assert not stored_rotated(image)
    sample = SemanticMapper(is_train=True, image_format="raw")(
        {"file_name": image, "sem_seg_file_name": label}
    )
    assert sample["image"].tolist() == VOLUME.tolist()
    assert sample["sem_seg"][0].tolist() == [0, 1, 2, 255]
    with pytest.raises(DatasetError, match=r"v\.nii: 2 slices where a label of one"):
        read_label(volume)
    Path(label).write_bytes(nifti(ids + 0.5, 16))
    with pytest.raises(DatasetError, match="fractions"):
        read_label(label)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a NIfTI-1 volume"),
        (b"\0" * 400, "not a NIfTI-1 volume"),
        (nifti(VOLUME, 4)[:-1], "truncated"),
        (nifti(VOLUME, 128), "datatype 128 is not supported"),
        (nifti(VOLUME, 4, sizes=(3, 4, -3, 2, 1, 1, 1, 1)), "sizes"),
        (nifti(VOLUME, 4, sizes=(4, 4, 3, 2, 7, 1, 1, 1)), "sizes"),
        (nifti(VOLUME, 4, sizes=(3, 32767, 32767, 32767, 1, 1, 1, 1)), "more than the limit"),
    ],
)
def test_what_is_wrong_is_an_error_that_names_the_file(tmp_path, content, message):
    (tmp_path / "a.nii").write_bytes(content)
    with pytest.raises(DatasetError, match=rf"a\.nii: .*{message}"):
        read_nifti(tmp_path / "a.nii")
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(nifti(VOLUME, 4))[:-20])
    with pytest.raises(DatasetError, match=r"a\.nii\.gz: damaged"):
        read_nifti(tmp_path / "a.nii.gz")
    with pytest.raises(DatasetError, match="no such file"):
        read_nifti(tmp_path / "b.nii")


def test_bytes_turned_at_random_are_errors_at_most(tmp_path):
    rng = np.random.default_rng(0)
    whole = bytearray(nifti(VOLUME, 4))
    for _ in range(300):
        content = bytearray(whole)
        for place in rng.integers(0, 352, 3):
            content[place] = rng.integers(256)
        (tmp_path / "a.nii").write_bytes(content)
        with contextlib.suppress(DatasetError):
            assert read_nifti(tmp_path / "a.nii").ndim == 3


def test_a_small_file_cannot_claim_memory(tmp_path):
    claim = nifti(VOLUME, 64, sizes=(3, 512, 512, 2048, 1, 1, 1, 1))  # 4 GiB of float64
    for name, pack in (("a.nii", bytes), ("a.nii.gz", gzip.compress)):
        (tmp_path / name).write_bytes(pack(claim))
        with pytest.raises(DatasetError, match=f"{name}: .*truncated"):
            read_nifti(tmp_path / name)


def test_without_nibabel_the_error_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "a.nii").write_bytes(nifti(VOLUME, 4))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DatasetError, match=r'a\.nii: .*pip install "seg_plugins\[medical\]"'):
        read_nifti(tmp_path / "a.nii")
