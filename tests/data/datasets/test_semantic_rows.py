"""Semantic rows with a layout, a label format or a measure of their own."""

from __future__ import annotations

from pathlib import Path

import seg_plugins
from seg_plugins.data import DatasetError, SemanticMapper, build_mapper
from seg_plugins.data.datasets.catalogue import load_dataset
from seg_plugins.engine.checks.consistency import check_datasets
from seg_plugins.evaluation import build_evaluator

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from miniatures import IMAGE, check, label, put, put_text


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_camvid_lists_carry_a_foreign_prefix(root, split):
    put(root / f"CamVid/{split}/a.png", IMAGE)
    put(root / f"CamVid/{split}annot/a.png", label(0, 10, 11))
    put_text(
        root / f"CamVid/{split}.txt",
        f"/SegNet/CamVid/{split}/a.png /SegNet/CamVid/{split}annot/a.png\n",
    )
    check(f"camvid_{split}", {0: "Sky", 10: "Bicyclist", 11: None})


def test_lists_from_windows_and_files_that_are_not_there(root):
    put(root / "CamVid/val/a.png", IMAGE)
    put(root / "CamVid/valannot/a.png", label(0))
    path = root / "CamVid/val.txt"
    line = "C:\\SegNet\\CamVid\\val\\a.png \\SegNet\\CamVid\\valannot\\a.png\r\n"
    path.write_bytes(b"\xef\xbb\xbf" + line.encode())
    (record,) = load_dataset("camvid_val")
    assert Path(record["file_name"]) == root / "CamVid/val/a.png"
    put_text(path, "val/a.png valannot/a.png\nval/b.png valannot/b.png\n")
    with pytest.raises(DatasetError, match=r"val\.txt, line 2: .*val/b\.png: no such file"):
        load_dataset("camvid_val")
    put_text(path, "\n")
    with pytest.raises(DatasetError, match=r"val\.txt: the list is empty"):
        load_dataset("camvid_val")


def test_images_and_labels_without_partner_are_named(root):
    put(root / "gta5/images/1.png", IMAGE)
    put(root / "gta5/images/2.png", IMAGE)
    put(root / "gta5/labels/1.png", label(7))
    put(root / "gta5/labels/3.png", label(7))
    named = []
    assert len(load_dataset("gta5_all", named.append)) == 1
    assert [str(e).partition(": no partner ")[2][:3] for e in named] == ["'2'", "'3'"]
    put(root / "gta5/images/3.jpg", IMAGE)  # which the row does not take
    with pytest.raises(DatasetError, match=r"2\.png: no partner '2'"):
        load_dataset("gta5_all")


def test_camvid_on_disk(shared_data, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(shared_data))
    assert len(load_dataset("camvid_train")) == 367
    assert len(load_dataset("camvid_val")) == 101


def test_stanford_background_text_labels(root):
    put(root / "iccv09Data/images/0000047.jpg", IMAGE)
    row = "0 7 -1 3 0 7 -1 3\n"
    put_text(root / "iccv09Data/labels/0000047.regions.txt", row * 6)
    check("stanford_background_all", {0: "sky", 7: "foreground object", -1: None, 3: "grass"})


def test_sift_flow(root):
    folder = root / "SiftFlowDataset"
    put(folder / "Images/coast/a.jpg", IMAGE)
    put(folder / "SemanticLabelsPNG/coast/a.png", label(0, 1, 33))
    for split in ("trainval", "test"):
        put_text(folder / f"{split}.txt", "coast/a\n")
        check(f"sift_flow_{split}", {0: None, 1: "awning", 33: "window"})


@pytest.mark.parametrize("city", ["2_Vegas", "3_Paris", "4_Shanghai", "5_Khartoum"])
def test_spacenet_roads(root, city):
    folder = root / f"spacenet_roads/AOI_{city}_Roads_Train"
    for number in (1, 2):
        stem = f"RGB-PanSharpen_AOI_{city}_img{number}"
        put(folder / f"RGB-PanSharpen/{stem}.tif", IMAGE.astype(np.uint16) * 8)
        put(folder / f"labels_png/{stem}.png", label(0, 1))
    put_text(folder / "labelled.txt", f"{stem}\n")
    name = f"spacenet_roads_{city[2:].lower()}"
    check(name, {0: "not road", 1: "road"})
    sample = SemanticMapper(is_train=True, image_format="raw")(load_dataset(name)[0])
    assert sample["image"][0, 0].tolist() == (IMAGE[0, :, 2] * 8.0).tolist()


def test_msrc21_colors(root):
    folder = root / "MSRC_ObjCategImageDatabase_v2"
    put(folder / "Images/1_1_s.bmp", IMAGE)
    colors = np.array([(128, 0, 0), (0, 0, 0), (128, 64, 128), (64, 0, 0)], np.uint8)
    put(folder / "GroundTruth/1_1_s_GT.bmp", colors[label(0, 1, 2, 3)][..., ::-1])
    check("msrc21_all", {0: "building", 1: None, 2: "road", 3: None})


def test_airsim_recordings(root):
    """Colours of the ids 0, 1 and 255 of seg_rgbs.txt, and black, which is none."""
    folder = root / "airsim/2018-02-09-15-30-12"
    rgb = np.array([(55, 181, 57), (153, 108, 6), (43, 47, 206), (0, 0, 0)], np.uint8)
    taken = {"img_0_0_111": IMAGE, "img_0_5_112": rgb[label(0, 1, 2, 3)][..., ::-1],
             "img_Drone1_front_0_113": IMAGE, "img_0_2_114": IMAGE}  # fmt: skip
    for name, pixels in taken.items():
        put(folder / f"images/{name}.png", pixels)
    rows = ["POS_X\tImageFile", "1.5\t" + ";".join(f"{name}.png" for name in taken)]
    put_text(folder / "airsim_rec.txt", "\n".join(rows) + "\n")
    check("airsim_all", {0: "object 0", 1: "object 1", 255: "object 255", 256: None})
    (record,) = load_dataset("airsim_all")
    assert Path(record["file_name"]).name == "img_0_0_111.png"
    for wrong in ("img_0_5_112.png", "../img_0_0_1.png;../img_0_5_1.png", ""):
        put_text(folder / "airsim_rec.txt", f"{rows[0]}\n1.5\t{wrong}\n")
        with pytest.raises(DatasetError, match=r"airsim_rec\.txt, line 2: no scene with its seg"):
            load_dataset("airsim_all")


def test_lits_slices(root):
    for split in ("train", "val"):
        path = root / f"lits/slices/{split}/volume-0_0001.npy"
        path.parent.mkdir(parents=True)
        np.save(path, np.linspace(-1000, 1000, 48, dtype=np.float32).reshape(6, 8))
        put(root / f"lits/labels/{split}/volume-0_0001.png", label(0, 1, 2))
        (record,) = load_dataset(f"lits_{split}")
        sample = SemanticMapper(is_train=True, image_format="raw")(record)
        assert sample["image"].shape == (1, 6, 8)
        assert sample["image"].min() == -1000  # Hounsfield units come through
        assert sample["sem_seg"][0, :3].tolist() == [0, 1, 2]


def evaluate_truth(name: str) -> dict[str, dict[str, float]]:
    """Results of a model that predicts the labels themselves."""
    cfg = seg_plugins.get_cfg()
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (name,), (name,)
    cfg.MODEL.META_ARCHITECTURE = "UNet"
    classes = len(MetadataCatalog.get(name).stuff_classes)
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = classes
    check_datasets(cfg)  # counts as a semantic dataset
    cfg.INPUT.FORMAT, cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.RANDOM_FLIP = "raw", (0,), "none"
    mapper = build_mapper(cfg, True)
    assert isinstance(mapper, SemanticMapper)
    evaluator = build_evaluator(cfg, name)
    evaluator.reset()
    for record in load_dataset(name):
        truth = mapper(record)["sem_seg"]
        scores = torch.nn.functional.one_hot(truth, classes).permute(2, 0, 1).float()
        evaluator.process([record], [{"sem_seg": scores}])
    return evaluator.evaluate()


def test_isbi2012_is_scored_with_its_own_measures(root):
    cells = np.full((12, 12), 255, np.uint8)
    cells[6] = 0
    put(root / "isbi2012/train/image/21.png", cells)
    put(root / "isbi2012/train/label/21.png", cells)
    results = evaluate_truth("isbi2012_val")
    assert results["sem_seg"]["mIoU"] == 100
    assert {v for k, v in results["em"].items() if "Error" in k} == {0.0}


def test_lits_is_scored_by_volume(root):
    for number, values in (("3_0001", (0, 1)), ("3_0002", (2, 1)), ("4_0001", (0, 1))):
        path = root / f"lits/slices/val/volume-{number}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.zeros((6, 8), np.float32))
        put(root / f"lits/labels/val/volume-{number}.png", label(*values))
    results = evaluate_truth("lits_val")
    assert results["volume"]["mDice"] == 100
    assert results["volume"]["Dice-tumour"] == 100
