"""The converters, run as a user runs them, on files written by hand."""

from __future__ import annotations

import gzip
import struct
import subprocess
import sys
from pathlib import Path

import seg_plugins
from seg_plugins.data import build_mapper
from seg_plugins.data.datasets.catalogue import load_dataset

import cv2
import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "datasets"


def run(script: str, *args: object) -> None:
    command = [sys.executable, str(FOLDER / script), *map(str, args)]
    subprocess.run(command, check=True, capture_output=True)


def write_nifti(path: Path, values: np.ndarray, code: int, slope: float, shift: float) -> None:
    """`values` (z, y, x) with the fields of the NIfTI-1 standard that matter."""
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *values.shape[::-1], 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, code, 8 * values.itemsize)
    struct.pack_into("<3f", header, 108, 352, slope, shift)
    header[344:348] = b"n+1\0"
    content = bytes(header) + values.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def test_lits_volumes_become_slices(tmp_path, monkeypatch):
    source = tmp_path / "source"
    source.mkdir()
    values = np.arange(3 * 4 * 5, dtype=np.int16).reshape(3, 4, 5)
    labels = (values % 3).astype(np.uint8)
    write_nifti(source / "volume-7.nii", values, 4, 2.0, -1000.0)
    write_nifti(source / "segmentation-7.nii.gz", labels, 2, 0.0, 0.0)
    run("prepare_lits.py", source, tmp_path / "lits", "--slab", 3)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    records = load_dataset("lits_train")
    assert len(records) == 3
    cfg = seg_plugins.get_cfg()
    cfg.DATASETS.TRAIN = ("lits_train",)
    cfg.INPUT.FORMAT, cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.RANDOM_FLIP = "raw", (0,), "none"
    sample = build_mapper(cfg, True)(records[0])
    # The first slice has itself as its lower neighbour.
    assert sample["image"][0].tolist() == (values[0] * 2 - 1000).tolist()
    assert sample["image"][2].tolist() == (values[1] * 2 - 1000).tolist()
    assert sample["sem_seg"].tolist() == labels[0].tolist()
    cfg.INPUT.VALUE_RANGE, cfg.INPUT.MIN_SIZE_TEST = [-1000.0, -990.0], 0
    windowed = build_mapper(cfg, False)(records[0])["image"][1]
    assert windowed[0].tolist() == pytest.approx([0, 51, 102, 153, 204])
    assert (windowed[1:] == 255).all()


def test_matlab_labels_become_pngs(tmp_path):
    savemat = pytest.importorskip("scipy.io").savemat
    folder = tmp_path / "annotations/pixel-level"
    folder.mkdir(parents=True)
    savemat(folder / "0001.mat", {"groundtruth": np.array([[0, 58]], np.uint8)})
    run("prepare_mat_labels.py", "ccp", tmp_path)
    assert cv2.imread(str(tmp_path / "labels_png/0001.png"), -1).tolist() == [[0, 58]]
