"""The converters, run as a user runs them, on files written by hand."""

from __future__ import annotations

import gzip
import json
import runpy
import struct
import subprocess
import sys
from pathlib import Path

import seg_plugins
from seg_plugins.data import build_mapper, register_custom_dataset
from seg_plugins.data.datasets.catalogue import load_dataset

import cv2
import numpy as np
import pytest
from detectron2.data import MetadataCatalog
from PIL import Image, TiffImagePlugin

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
    pytest.importorskip("nibabel", reason="reads NIfTI: the extra 'medical'")
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


@pytest.mark.parametrize(
    ("value", "label", "message"),
    [
        (0, 3, "segmentation-7.nii: 1 voxels hold [3.0], which are none of [0, 1, 2]"),
        (0, 1.5, "1 voxels hold [1.5]"),
        (40000, 1, "volume-7.nii: 1 voxels are NaN or do not fit 16 bits"),
        (np.nan, 1, "volume-7.nii: 1 voxels are NaN"),
    ],
)
def test_lits_values_that_would_change_are_refused(tmp_path, monkeypatch, value, label, message):
    pytest.importorskip("nibabel", reason="reads NIfTI: the extra 'medical'")
    values, labels = (np.array([[[0, v]]], np.float32) for v in (value, label))
    write_nifti(tmp_path / "volume-7.nii", values, 16, 0.0, 0.0)
    write_nifti(tmp_path / "segmentation-7.nii", labels, 16, 0.0, 0.0)
    script = runpy.run_path(str(FOLDER / "prepare_lits.py"))
    monkeypatch.setattr(sys, "argv", ["prepare_lits.py", str(tmp_path), str(tmp_path / "lits")])
    with pytest.raises(SystemExit) as stop:
        script["main"]()
    assert message in str(stop.value)


def test_matlab_labels_become_pngs(tmp_path):
    savemat = pytest.importorskip("scipy.io").savemat
    folder = tmp_path / "annotations/pixel-level"
    folder.mkdir(parents=True)
    savemat(folder / "0001.mat", {"groundtruth": np.array([[0, 58]], np.uint8)})
    run("prepare_mat_labels.py", "ccp", tmp_path)
    assert cv2.imread(str(tmp_path / "labels_png/0001.png"), -1).tolist() == [[0, 58]]


def test_barcelona_takes_its_classes_from_the_files(tmp_path):
    savemat = pytest.importorskip("scipy.io").savemat
    names = np.array([["sky"], ["traffic light"]], object)
    for stem, row in {"street/a": [0, 1, 2], "places/b": [2, 2, 0]}.items():
        for path in (tmp_path / f"SemanticLabels/{stem}.mat", tmp_path / f"Images/{stem}.jpg"):
            path.parent.mkdir(parents=True)
        savemat(
            tmp_path / f"SemanticLabels/{stem}.mat",
            {"S": np.array([row] * 3, np.uint8), "names": names},
        )
        cv2.imwrite(str(tmp_path / f"Images/{stem}.jpg"), np.zeros((3, 3, 3), np.uint8))
    (tmp_path / "TestSet1.txt").write_text("street\\a.jpg\n")
    run("prepare_mat_labels.py", "barcelona", tmp_path)
    register_custom_dataset(tmp_path / "barcelona.yaml")
    assert MetadataCatalog.get("barcelona_val").stuff_classes == ["sky", "traffic light"]
    assert read_ids("barcelona_val")[0].tolist() == [255, 0, 1]
    assert read_ids("barcelona_train")[0].tolist() == [1, 1, 255]


def read_ids(name: str) -> np.ndarray:
    (record,) = load_dataset(name)
    return MetadataCatalog.get(name).sem_seg_loading_fn(record["sem_seg_file_name"])


def test_ade20k_full_keeps_the_classes_of_both_splits(tmp_path):
    known = {3: "door", 300: "wall", 2836: "traffic light", 5: "knob"}
    images = {
        "training/urban/street/ADE_train_00000001": [300, 2836, 3],
        "validation/urban/street/ADE_val_00000001": [2836, 300, 0],
    }
    for stem, numbers in images.items():
        path = tmp_path / f"images/ADE/{stem}.json"
        path.parent.mkdir(parents=True)
        objects = [
            {"name": known[n], "name_ndx": n, "parts": {"part_level": 0}} for n in numbers if n
        ]
        objects.append({"name": "knob", "name_ndx": 5, "parts": {"part_level": 1}})
        path.write_text(json.dumps({"annotation": {"object": objects}}))
        cv2.imwrite(str(path.with_suffix(".jpg")), np.zeros((2, 3, 3), np.uint8))
        seg = np.array([[[7, n % 256, n // 256 * 10] for n in numbers]] * 2, np.uint8)
        cv2.imwrite(str(path.with_name(f"{path.stem}_seg.png")), seg)
    run("prepare_ade20k_full.py", tmp_path)
    register_custom_dataset(tmp_path / "ade20k_full.yaml")
    metadata = MetadataCatalog.get("ade20k_full_train")
    assert metadata.stuff_classes == ["wall", "traffic light"]
    assert metadata.ignore_label == 65535
    assert read_ids("ade20k_full_train")[0].tolist() == [0, 1, 65535]
    assert read_ids("ade20k_full_val")[0].tolist() == [1, 0, 65535]


def test_spacenet_roads_are_drawn_in_metres(tmp_path, monkeypatch):
    city = tmp_path / "spacenet_roads/AOI_2_Vegas_Roads_Train"
    step = 1 / 111320  # a metre at the equator, a metre by half a metre at 60 degrees
    for number, north in ((1, 0.0), (2, 60.0), (3, 0.0), (4, 0.0)):
        path = city / f"RGB-PanSharpen/RGB-PanSharpen_AOI_2_Vegas_img{number}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        for tag, values in ((33550, (step, step, 0.0)), (33922, (0.0, 0.0, 0.0, 8.0, north, 0.0))):
            tags.tagtype[tag], tags[tag] = 12, values
        Image.new("RGB", (9, 7)).save(path, tiffinfo=tags)
        if number == 3:
            continue  # a tile that has no lines' file
        # Down the middle of column 4, from the middle of row 2 on.
        line = [[8 + 4.5 * step, north - 2.5 * step], [8 + 4.5 * step, north - 20 * step]]
        lines = city / f"geojson/spacenetroads/spacenetroads_AOI_2_Vegas_img{number}.geojson"
        lines.parent.mkdir(parents=True, exist_ok=True)
        geometry = {"type": "LineString", "coordinates": line}
        roads = json.dumps({"features": [{"geometry": geometry}]})
        lines.write_text(roads if number != 4 else "")  # a tile without roads
    run("prepare_spacenet_roads.py", tmp_path / "spacenet_roads", "--buffer", 1.2)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    records = load_dataset("spacenet_roads_vegas")
    assert len(records) == 3
    equator, north, empty = (cv2.imread(r["sem_seg_file_name"], -1).tolist() for r in records)
    none = [0] * 9
    assert empty == [none] * 7
    assert equator == [none, [0, 0, 0, 0, 1, 0, 0, 0, 0]] + [[0, 0, 0, 1, 1, 1, 0, 0, 0]] * 5
    # There a column is half as wide: 1.2 metres are two of them, and one beside the line's end.
    assert north == [none, [0, 0, 0, 1, 1, 1, 0, 0, 0]] + [[0, 0, 1, 1, 1, 1, 1, 0, 0]] * 5
