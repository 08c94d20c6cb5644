"""LVIS files of Detectron2's names: read without the package lvis, and with its result."""

from __future__ import annotations

import json

from seg_plugins.data import Dataset
from seg_plugins.data.datasets.coco_fields import Records
from seg_plugins.tasks import task_of_evaluator

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_lvis_json, register_lvis_instances
from detectron2.data.datasets.builtin_meta import _get_coco_instances_meta
from detectron2.data.datasets.lvis import get_lvis_instances_meta

OUTLINE = [1.0, 1.0, 9.0, 1.0, 9.0, 9.0]


def content():
    """The images are of both of COCO's folders; ids and names are LVIS's own."""
    url = "http://images.cocodataset.org"
    images = [
        {"id": 7, "height": 20, "width": 30, "coco_url": f"{url}/train2017/000000000007.jpg",
         "neg_category_ids": [1203], "not_exhaustive_category_ids": []},
        {"id": 3, "height": 20, "width": 30, "coco_url": f"{url}/val2017/000000000003.jpg",
         "neg_category_ids": [], "not_exhaustive_category_ids": [2]},
    ]  # fmt: skip
    names = {1: ("aerosol_can", "c"), 2: ("air_conditioner", "f"), 1203: ("zucchini", "r")}
    box = {"bbox": [1.0, 1.0, 8.0, 8.0], "area": 32.0, "segmentation": [OUTLINE]}
    return {
        "images": images,
        "annotations": [
            {"id": 5, "image_id": 3, "category_id": 2, **box},
            {"id": 9, "image_id": 7, "category_id": 1203, **box},
            {"id": 4, "image_id": 3, "category_id": 1, **box},
        ],
        "categories": [
            {"id": i, "name": name, "frequency": letter} for i, (name, letter) in names.items()
        ],
    }


@pytest.fixture
def name(tmp_path):
    """Registered as Detectron2 registers lvis_v1_val."""
    file = tmp_path / "lvis_v1_some.json"
    file.write_text(json.dumps(content()))
    metadata = get_lvis_instances_meta("lvis_v1")
    register_lvis_instances("lvis_v1_some", metadata, str(file), f"{tmp_path}/coco/")
    yield "lvis_v1_some"
    DatasetCatalog.remove("lvis_v1_some")
    MetadataCatalog.remove("lvis_v1_some")
    Dataset.forget("lvis_v1_some")


def test_detectron2s_names_are_checked_datasets(name, tmp_path):
    dataset = Dataset.get(name)
    assert isinstance(dataset.records, Records)
    assert dataset.instance_records is dataset.records, "the file would be read again"
    assert dataset.task is task_of_evaluator("lvis")
    assert (len(dataset.things), dataset.things.names[1202]) == (1203, "zucchini")
    assert dataset.things.category_ids[1202] == 1203
    assert dataset.metadata["thing_frequencies"] == {0: "c", 1: "f", 1202: "r"}
    first, second = dataset.records
    assert first["file_name"] == str(tmp_path / "coco/train2017/000000000007.jpg")
    assert first["neg_category_ids"] == [1203]
    assert second["not_exhaustive_category_ids"] == [2]
    assert [a["category_id"] for a in second["annotations"]] == [1, 0]
    assert [a["area"] for a in second["annotations"]] == [32, 32]


def test_the_builtin_names_are_lvis():
    for name, classes in (("lvis_v1_train", 1203), ("lvis_v1_val", 1203), ("lvis_v0.5_val", 1230)):
        metadata = MetadataCatalog.get(name)
        assert metadata.evaluator_type == "lvis"
        assert len(metadata.thing_classes) == classes


def test_the_records_are_detectron2s_own(name):
    pytest.importorskip("lvis", reason="the package lvis is not installed")
    metadata = MetadataCatalog.get(name)
    theirs = load_lvis_json(metadata.json_file, metadata.image_root, name)
    ours = sorted(Dataset.get(name).records, key=lambda record: record["image_id"])
    assert [list(record) for record in ours]
    for mine, other in zip(ours, theirs, strict=True):
        assert {key: mine[key] for key in other if key != "annotations"} == {
            key: other[key] for key in other if key != "annotations"
        }
        for a, b in zip(mine["annotations"], other["annotations"], strict=True):
            assert {key: a[key] for key in b} == b


def test_coco_classes_in_lvis_form_keep_their_ids(tmp_path):
    """As Detectron2's lvis_v0.5_val_cocofied: the metadata has the ids."""
    found = content()
    found["categories"] = [{"id": 90, "name": "toothbrush", "frequency": "f"}]
    for annotation in found["annotations"]:
        annotation["category_id"] = 90
    file = tmp_path / "some.json"
    file.write_text(json.dumps(found))
    register_lvis_instances("some_cocofied", _get_coco_instances_meta(), str(file), str(tmp_path))
    try:
        dataset = Dataset.get("some_cocofied")
        assert {a["category_id"] for r in dataset.records for a in r["annotations"]} == {79}
        assert dataset.metadata["thing_frequencies"] == {79: "f"}
    finally:
        DatasetCatalog.remove("some_cocofied")
        MetadataCatalog.remove("some_cocofied")
        Dataset.forget("some_cocofied")
