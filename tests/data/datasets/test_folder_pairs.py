"""Two folders as a dataset, told by their paths alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import seg_plugins
from seg_plugins.data import DatasetError, apply_custom_dataset, build_mapper
from seg_plugins.data.datasets.catalogue import load_dataset
from seg_plugins.data.datasets.folder_pairs import register_folder_dataset
from seg_plugins.data.doctor import check_dataset
from seg_plugins.engine.checks.consistency import check_datasets

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog


@pytest.fixture
def name(tmp_path, monkeypatch) -> str:
    for stem in ("a", "town/b"):
        for kind, suffix in (("images", ".jpg"), ("masks", ".png")):
            path = tmp_path / kind / f"{stem}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.tile(np.array([0, 1, 2, 255], np.uint8), (4, 1))
            assert cv2.imwrite(str(path), pixels)
    (tmp_path / "images/notes.txt").write_text("no picture")
    monkeypatch.chdir(tmp_path)
    return "folder:images,masks"


def config(name: str, classes: int = 3):
    cfg = seg_plugins.get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "DeepLabV3Plus"
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = classes
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (name,), (name,)
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.RANDOM_FLIP = (0,), "none"
    return cfg


def test_two_folders_are_read(name):
    cfg = config(name)
    apply_custom_dataset(cfg)
    check_datasets(cfg)
    records = DatasetCatalog.get(name)
    assert [Path(r["sem_seg_file_name"]).name for r in records] == ["a.png", "b.png"]
    assert records[1]["file_name"].endswith("images/town/b.jpg")
    assert MetadataCatalog.get(name).stuff_classes == ["class_0", "class_1", "class_2"]
    assert MetadataCatalog.get(name).evaluator_type == "sem_seg"
    sample = build_mapper(cfg, True)(records[0])
    assert sample["sem_seg"][0].tolist() == [0, 1, 2, 255]


def test_another_number_of_classes_replaces_the_first(name):
    for classes, expected in ((3, 3), (19, 19), (1, 2)):
        cfg = config(name, classes)
        apply_custom_dataset(cfg)
        check_datasets(cfg)
        assert len(MetadataCatalog.get(name).stuff_classes) == expected


def test_ids_beyond_the_classes_are_found(name):
    register_folder_dataset(name, 2)
    problems = [p for p in check_dataset(name).problems if p.is_error]
    assert {p.kind for p in problems} == {"label value"}
    assert "a.png" in problems[0].message
    register_folder_dataset(name, 3)
    assert not check_dataset(name).errors


def test_a_file_without_a_partner_is_named(name, tmp_path):
    shutil.copy(tmp_path / "masks/a.png", tmp_path / "masks/c.png")
    register_folder_dataset(name, 3)
    with pytest.raises(DatasetError, match=r"masks/c\.png: no partner 'c' in .*images"):
        load_dataset(name)
    shutil.copy(tmp_path / "masks/a.png", tmp_path / "masks/a.bmp")
    with pytest.raises(DatasetError, match=r"a\.png: a\.bmp has the same name"):
        load_dataset(name)


def test_endings_that_all_names_share_are_left_out(tmp_path):
    for number in (1, 2):
        for kind, ending in (("images", "img"), ("masks", "gt")):
            (tmp_path / kind).mkdir(exist_ok=True)
            pixels = np.full((2, 2), number, np.uint8)
            assert cv2.imwrite(str(tmp_path / kind / f"{number}_{ending}.png"), pixels)
    name = f"folder:{tmp_path / 'images'},{tmp_path / 'masks'}"
    register_folder_dataset(name, 3)
    found = [Path(r["sem_seg_file_name"]).name for r in load_dataset(name)]
    assert found == ["1_gt.png", "2_gt.png"]


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("{}.jpg", "{}_s.jpg"),
        ("{}.jpg", "{}_GT.png"),
        ("{}_s.bmp", "{}_s_GT.bmp"),
        ("{}_s.JPG", "{}_GT.png"),
        ("{}-img.jpeg", "{}-label-final.TIF"),
        ("1_{}_s.tif", "1_{}_s_GT.png"),
    ],
)
def test_names_that_end_differently_find_their_partner(tmp_path, images, masks):
    numbers = ("1", "12", "112")
    for kind, form in (("images", images), ("masks", masks)):
        (tmp_path / kind).mkdir()
        for number in numbers:
            (tmp_path / kind / form.format(number)).write_bytes(b"")
    name = f"folder:{tmp_path / 'images'},{tmp_path / 'masks'}"
    register_folder_dataset(name, 3)
    found = {
        Path(r["file_name"]).name: Path(r["sem_seg_file_name"]).name for r in load_dataset(name)
    }
    assert found == {images.format(n): masks.format(n) for n in numbers}


@pytest.mark.parametrize(
    ("images", "masks", "message"),
    [
        (("a.jpg", "b.jpg"), ("c.png", "d.png"), "do not agree, e.g. a.jpg in .*masks"),
        (("x_1.jpg", "x_2.jpg"), ("y_1.png", "y_2.png"), "do not agree"),
        (("1.jpg", "2_s.jpg"), ("1_s_m.png", "2_s_m.png"), "pair in several ways"),
    ],
)
def test_names_that_tell_no_partner_are_refused_with_the_keys(tmp_path, images, masks, message):
    for kind, names in (("images", images), ("masks", masks)):
        (tmp_path / kind).mkdir()
        for name in names:
            (tmp_path / kind / name).write_bytes(b"")
    name = f"folder:{tmp_path / 'images'},{tmp_path / 'masks'}"
    register_folder_dataset(name, 3)
    with pytest.raises(DatasetError, match=f"{message}.*image_suffix and mask_suffix"):
        load_dataset(name)


@pytest.mark.parametrize(
    ("spelling", "message"),
    [
        ("folder:images", "expected 'folder:path/to/images,path/to/masks'"),
        ("folder:images,", "expected"),
        ("folder:images,masks,more", "expected"),
        ("folder:images,images", "different folders"),
        ("folder:images,labels", "labels is no folder"),
    ],
)
def test_mistakes_are_refused_before_training(name, spelling, message):
    with pytest.raises(DatasetError, match=message):
        apply_custom_dataset(config(spelling))
