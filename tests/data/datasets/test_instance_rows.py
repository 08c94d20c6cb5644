"""Rows with instances: masks of every published form, and panoptic samples in two parts."""

from __future__ import annotations

import json
from pathlib import Path

import seg_plugins
from seg_plugins.data import DatasetError, build_mapper
from seg_plugins.data.datasets.catalogue import load_dataset
from seg_plugins.data.datasets.mask_folders import read_mask_folders

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.data.datasets import load_coco_json, load_sem_seg
from detectron2.data.datasets.coco_panoptic import merge_to_panoptic
from miniatures import IMAGE, put, put_text


def test_separated_panoptic_is_detectron2s(tmp_path):
    """Detectron2's own loader on the same files, its "stuff" PNGs made here of the labels."""
    name = "shapes_panoptic_val_separated"
    ours = load_dataset(name)
    metadata = MetadataCatalog.get(name)
    things, stuff = range(6), (6, 7)
    for record in ours[:5]:
        ids = cv2.imread(record["sem_seg_file_name"], cv2.IMREAD_UNCHANGED)
        lut = np.full(256, 255, np.uint8)
        lut[list(things)] = 0
        lut[list(stuff)] = 1, 2
        put(tmp_path / "stuff" / Path(record["sem_seg_file_name"]).name, lut[ids])
    instances = json.loads(Path(metadata.json_file).read_text())
    instances["images"] = instances["images"][:5]
    kept = {image["id"] for image in instances["images"]}
    instances["annotations"] = [a for a in instances["annotations"] if a["image_id"] in kept]
    (tmp_path / "instances.json").write_text(json.dumps(instances))
    images = tmp_path / "images"
    images.mkdir()
    for record in ours[:5]:
        (images / Path(record["file_name"]).name).symlink_to(record["file_name"])
    peer = merge_to_panoptic(
        load_coco_json(str(tmp_path / "instances.json"), str(images), "ill_peer"),
        load_sem_seg(str(tmp_path / "stuff"), str(images), image_ext="png"),
    )
    MetadataCatalog.remove("ill_peer")
    assert len(peer) == 5
    cfg = seg_plugins.get_cfg()
    cfg.INPUT.MASK_FORMAT, cfg.INPUT.MIN_SIZE_TRAIN = "bitmask", (0,)
    cfg.DATASETS.TRAIN = (name,)
    assert metadata.stuff_classes == ["things", "stripes", "speckle"]
    assert metadata.thing_dataset_id_to_contiguous_id == {i + 1: i for i in things}
    assert metadata.stuff_dataset_id_to_contiguous_id == {0: 0, 7: 1, 8: 2}
    mapper = build_mapper(cfg, True)
    for a, b in zip(ours, peer, strict=False):
        one, other = (mapper(r, np.random.default_rng(0)) for r in (a, b))
        assert torch.equal(one["sem_seg"], other["sem_seg"])
        assert torch.equal(one["image"], other["image"])
        found, expected = one["instances"], other["instances"]
        assert torch.equal(found.gt_boxes.tensor, expected.gt_boxes.tensor)
        assert torch.equal(found.gt_classes, expected.gt_classes)
        assert torch.equal(found.gt_masks.tensor, expected.gt_masks.tensor)


def test_dsb2018_masks_become_instances(root):
    for number in range(5):
        folder = root / f"dsb2018/stage1_train/id{number}"
        put(folder / f"images/id{number}.png", IMAGE)
        mask = np.zeros((6, 8), np.uint8)
        mask[1:3, 2:6] = 255
        put(folder / "masks/a.png", mask)
        put(folder / "masks/b.png", 255 - mask)
    train, val = load_dataset("dsb2018_train"), load_dataset("dsb2018_val")
    assert (len(train), len(val)) == (4, 1)
    assert not {r["file_name"] for r in train} & {r["file_name"] for r in val}
    first = val[0]["annotations"][0]
    assert first["bbox"] == [2, 1, 4, 2]
    assert [a["category_id"] for a in val[0]["annotations"]] == [0, 0]


def test_bdd100k_bitmasks(root):
    bgra = np.zeros((6, 8, 4), np.uint8)  # file channels: category, flags, instance (2 bytes)
    bgra[0, :3, 2], bgra[0, :3, 3] = 3, 7  # a car
    bgra[2, :5, 2], bgra[2, :5, 1], bgra[2, :5, 3] = 1, 2, 8  # a crowd of pedestrians
    bgra[4, :, 2], bgra[4, :, 1], bgra[4, :, 3] = 4, 1, 9  # ignored
    for split in ("train", "val"):
        put(root / f"bdd100k/images/10k/{split}/a.jpg", IMAGE)
        put(root / f"bdd100k/labels/ins_seg/bitmasks/{split}/a.png", bgra)
        (record,) = load_dataset(f"bdd100k_instance_{split}")
        found = {(a["category_id"], a["iscrowd"], *a["bbox"]) for a in record["annotations"]}
        assert found == {(2, 0, 0, 0, 3, 1), (0, 1, 0, 2, 5, 1)}


@pytest.mark.parametrize("kind", ["bikes", "cars", "people"])
def test_graz02_objects_are_what_is_seen_of_them(root, kind):
    bgr = np.zeros((6, 8, 3), np.uint8)
    bgr[1:3, 2:6, 2] = 255  # red: seen
    bgr[3:5, 2:6, 1] = 255  # green: hidden
    hidden = np.zeros_like(bgr)
    hidden[0, 0, 1] = 255
    for stem in ("a_001", "a_002"):
        put(root / f"ig02/{kind}/{stem}.image.png", IMAGE)
        put(root / f"ig02/{kind}/{stem}.mask.0.png", bgr)
        put(root / f"ig02/{kind}/{stem}.mask.1.png", hidden)
    put_text(root / f"ig02/{kind}_train.txt", "a_001\n")
    put_text(root / f"ig02/{kind}_test.txt", "a_002\n")
    for split, stem in (("train", "a_001"), ("test", "a_002")):
        (record,) = load_dataset(f"graz02_{kind}_{split}")
        assert record["file_name"].endswith(f"{kind}/{stem}.image.png")
        assert (record["height"], record["width"]) == (6, 8)
        assert [a["bbox"] for a in record["annotations"]] == [[2, 1, 4, 2]]
    put(root / f"ig02/{kind}/a_001.mask.0.png", bgr[:3])
    with pytest.raises(DatasetError, match=r"a_001\.mask\.0\.png: size \(3, 8\)"):
        load_dataset(f"graz02_{kind}_train")


def test_bitmasks_and_images_without_partner_are_named(root):
    folder = root / "bdd100k"
    for stem in ("a", "b"):
        put(folder / f"images/10k/val/{stem}.jpg", IMAGE)
    put(folder / "labels/ins_seg/bitmasks/val/a.png", np.zeros((6, 8, 4), np.uint8))
    with pytest.raises(DatasetError, match=r"val/b\.jpg: no partner 'b' in .*bitmasks"):
        load_dataset("bdd100k_instance_val")


def test_a_folder_without_masks_is_no_image_without_instances(root):
    for number in range(2):
        put(root / f"dsb2018/stage1_train/id{number}/images/id{number}.png", IMAGE)
    with pytest.raises(DatasetError, match="none of 2 images falls into this part"):
        read_mask_folders(root / "dsb2018/stage1_train", (0.9, 1.0))
    with pytest.raises(DatasetError, match="masks: no such folder; an empty one means no instance"):
        read_mask_folders(root / "dsb2018/stage1_train", (0.0, 1.0))
    for number in range(2):
        (root / f"dsb2018/stage1_train/id{number}/masks").mkdir()
    records = read_mask_folders(root / "dsb2018/stage1_train", (0.0, 1.0))
    assert [record["annotations"] for record in records] == [[], []]
