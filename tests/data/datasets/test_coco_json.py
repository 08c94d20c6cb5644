"""COCO files against the COCO API and Detectron2's own readers."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

from seg_plugins.data import DatasetError, InstanceMapper, register_custom_dataset
from seg_plugins.data.datasets.catalogue import load_dataset
from seg_plugins.data.datasets.class_table import load_class_table
from seg_plugins.data.datasets.coco_instances import read_instances

import numpy as np
import pycocotools.mask as coco_mask
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json
from detectron2.data.datasets.coco_panoptic import load_coco_panoptic_json


def by_id(records: list[dict]) -> dict:
    return {record["image_id"]: record for record in records}


@pytest.fixture
def folder(dataset_root) -> Path:
    DatasetCatalog.get("shapes_val")
    return dataset_root / "shapes"


def test_instances_equal_detectron2(folder):
    ours = by_id(DatasetCatalog.get("shapes_instance_val"))
    theirs = by_id(
        load_coco_json(
            str(folder / "annotations/instances_val.json"), str(folder / "images/val"), "peer"
        )
    )
    assert ours.keys() == theirs.keys()
    for image_id, record in ours.items():
        other = theirs[image_id]
        assert record["file_name"] == other["file_name"]
        for a, b in zip(record["annotations"], other["annotations"], strict=True):
            assert (a["bbox"], a["category_id"], a["iscrowd"]) == (
                b["bbox"], b["category_id"], b["iscrowd"]
            )  # fmt: skip
    ids = MetadataCatalog.get("shapes_instance_val").thing_dataset_id_to_contiguous_id
    assert ids == MetadataCatalog.get("peer").thing_dataset_id_to_contiguous_id


def test_annotations_keep_the_files_id_and_area(folder):
    path = folder / "annotations/instances_val.json"
    told = {a["id"]: a for a in json.loads(path.read_text())["annotations"]}
    found = {
        a["id"]: a for r in DatasetCatalog.get("shapes_instance_val") for a in r["annotations"]
    }
    assert {i: a["area"] for i, a in found.items()} == {i: a["area"] for i, a in told.items()}


def test_panoptic_equals_detectron2(folder):
    metadata = MetadataCatalog.get("shapes_panoptic_val").as_dict()
    theirs = by_id(_with_jpg_names(folder, metadata))
    for record in DatasetCatalog.get("shapes_panoptic_val"):
        other = theirs[record["image_id"]]
        key = ("id", "category_id", "isthing", "iscrowd")
        assert [[s[k] for k in key] for s in record["segments_info"]] == [
            [s[k] for k in key] for s in other["segments_info"]
        ]


def _with_jpg_names(folder: Path, metadata: dict) -> list[dict]:
    """Detectron2's reader insists on .jpg: give it one."""
    shutil.copy(folder / "images/val/0000.png", folder / "images/val/0000.jpg")
    try:
        return load_coco_panoptic_json(
            str(folder / "annotations/panoptic_val.json"),
            str(folder / "images/val"),
            str(folder / "panoptic/val"),
            metadata,
        )
    finally:
        (folder / "images/val/0000.jpg").unlink()


@pytest.mark.parametrize("seed", range(3))
def test_packed_run_lengths_are_checked_exactly(tmp_path, seed):
    """What the COCO API packs is accepted; with one run more or less it is not."""
    rng = np.random.default_rng(seed)
    mask = np.asfortranarray(rng.random((40, 50)) < 0.3, dtype=np.uint8)
    packed = coco_mask.encode(mask)["counts"].decode()
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 40, "width": 50}],
        "categories": [{"id": 1, "name": "disc"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 50, 40],
             "segmentation": {"size": [40, 50], "counts": packed}},
        ],
    }  # fmt: skip
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    table = load_class_table("shapes").things
    (record,) = read_instances(path, tmp_path, table)
    rle = record["annotations"][0]["segmentation"]
    assert np.array_equal(coco_mask.decode(rle), mask)
    for changed in (packed[:-1], packed + "1", packed[: len(packed) // 2]):
        broken = copy.deepcopy(content)
        broken["annotations"][0]["segmentation"]["counts"] = changed
        path.write_text(json.dumps(broken))
        with pytest.raises(DatasetError, match=r"annotation 1: segmentation\.counts"):
            read_instances(path, tmp_path, table)


def test_tiny_coco_equals_the_coco_api(shared_data, tmp_path):
    """Real photographs: every polygon, crowd and box as pycocotools reads them."""
    from pycocotools.coco import COCO

    root = shared_data / "coco_tiny"
    path = root / "annotations/instances_val2017.json"
    coco = COCO(str(path))
    records = by_id(read_instances(path, root / "val2017", load_class_table("coco_instances")))
    mapper = InstanceMapper(is_train=True, mask_format="bitmask")
    assert records.keys() == coco.imgs.keys()
    for image_id in list(records)[:8]:
        expected = [a for a in coco.imgToAnns[image_id] if not a["iscrowd"]]
        found = mapper(records[image_id], np.random.default_rng(0))["instances"]
        masks = [coco.annToMask(a).astype(bool) for a in expected]
        kept = np.array([m for m in masks if m.any()]).reshape(-1, *masks[0].shape)
        assert np.array_equal(found.gt_masks.tensor.numpy(), kept)


def test_tiny_coco_by_a_yaml_of_class_names(shared_data, tmp_path):
    root = shared_data / "coco_tiny"
    names = load_class_table("coco_instances").names
    (tmp_path / "tiny.yaml").write_text(
        json.dumps(
            {
                "name": "tiny_coco", "task": "instance", "root": str(root), "classes": names,
                "train": {"images": "train2017", "json": "annotations/instances_train2017.json"},
            }
        )
    )  # fmt: skip
    register_custom_dataset(tmp_path / "tiny.yaml")
    assert len(load_dataset("tiny_coco_train")) == 44
    ids = MetadataCatalog.get("tiny_coco_train").thing_dataset_id_to_contiguous_id
    assert ids == load_class_table("coco_instances").category_map()


def test_detectron2s_coco_names_are_read_by_our_reader(tmp_path, monkeypatch):
    table = load_class_table("coco_instances")
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 4, "width": 5}],
        "categories": [{"id": c.category_id, "name": c.name} for c in table.classes],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 90, "bbox": [0, 0, 2, 2], "iscrowd": 0,
             "segmentation": [[0, 0, 2, 0, 2, 2]]},
            {"id": 2, "image_id": 1, "category_id": 91, "bbox": [0, 0, 2, 2], "iscrowd": 0},
        ],
    }  # fmt: skip
    path = tmp_path / "instances_val2017.json"
    path.write_text(json.dumps(content))
    # Detectron2 fixed the path when it was imported.
    monkeypatch.setitem(vars(MetadataCatalog.get("coco_2017_val")), "json_file", str(path))
    problems: list[DatasetError] = []
    (record,) = load_dataset("coco_2017_val", problems.append)
    assert [a["category_id"] for a in record["annotations"]] == [79]
    assert "annotation 2: category_id 91" in str(problems[0])
