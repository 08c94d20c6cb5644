"""One checked object per dataset, whoever has registered it and whatever was loaded before."""

from __future__ import annotations

import json
from pathlib import Path

from seg_plugins.data import Dataset, DatasetError

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.structures import BoxMode
from PIL import Image

BOX = [2, 3, 4, 5]


def write_coco(folder, categories, file="a.json", **changes):
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(folder / "a.png")
    polygon = [[2, 3, 6, 3, 6, 8, 2, 8]]
    annotations = [
        {
            "id": 10 + i, "image_id": 5, "category_id": c["id"], "bbox": BOX, "area": 20,
            "iscrowd": 0, "segmentation": polygon, **changes,
        }
        for i, c in enumerate(categories)
    ]  # fmt: skip
    image = {"id": 5, "file_name": "a.png", "height": 16, "width": 16}
    content = {"images": [image], "categories": categories, "annotations": annotations}
    (folder / file).write_text(json.dumps(content))
    return str(folder / file)


def of_one(**changes):
    """A record with one annotation."""
    annotation = {"bbox": BOX, "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0, **changes}
    return {"file_name": "a", "height": 9, "width": 9, "annotations": [annotation]}


@pytest.fixture
def name():
    yield "dataset_under_test"
    for catalogue in (DatasetCatalog, MetadataCatalog):
        if "dataset_under_test" in catalogue.list():
            catalogue.remove("dataset_under_test")


def test_detectron2s_registration_of_a_coco_file(name, tmp_path):
    categories = [{"id": 90, "name": "bolt"}, {"id": 7, "name": "nut"}]
    register_coco_instances(name, {}, write_coco(tmp_path, categories), str(tmp_path))
    dataset = Dataset.get(name)
    assert dataset is Dataset.get(name) is Dataset.get(dataset)
    # In the order of the ids, as Detectron2 has it.
    assert dataset.things.names == ("nut", "bolt")
    assert dataset.instance_classes == [(0, 7, "nut"), (1, 90, "bolt")]
    found = [(a["id"], a["category_id"], a["area"]) for a in dataset.records[0]["annotations"]]
    assert found == [(10, 1, 20), (11, 0, 20)]
    theirs = DatasetCatalog.get(name)
    assert [a["category_id"] for a in theirs[0]["annotations"]] == [1, 0]
    assert MetadataCatalog.get(name).thing_dataset_id_to_contiguous_id == {7: 0, 90: 1}


def test_a_file_that_changes_is_read_again(name, tmp_path):
    file = write_coco(tmp_path, [{"id": 1, "name": "nut"}])
    register_coco_instances(name, {}, file, str(tmp_path))
    assert len(Dataset.get(name).records[0]["annotations"]) == 1
    content = json.loads((tmp_path / "a.json").read_text())
    content["annotations"] = []
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert Dataset.get(name).records[0]["annotations"] == []


def test_a_dataset_of_functions_alone(name):
    """As in Detectron2's tutorial: no colors, no evaluator_type, no image_id."""
    box = {"bbox": [2, 3, 6, 8], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
    records = [
        {"file_name": f"{i}.png", "height": 9, "width": 9, "annotations": [box]} for i in "ab"
    ]
    DatasetCatalog.register(name, lambda: records)
    MetadataCatalog.get(name).thing_classes = ["balloon"]
    dataset = Dataset.get(name)
    assert dataset.task.name == "instance"
    assert dataset.evaluator_types == ("coco",)
    assert dataset.things.colors == ((128, 0, 0),)
    assert [record["image_id"] for record in dataset.records] == [0, 1]
    assert "image_id" not in records[0], "the user's own records stay as they are"
    assert dataset.instance_records is dataset.records
    assert dataset.instance_classes == [(0, 0, "balloon")]


def test_names_with_metadata_alone(name, tmp_path):
    MetadataCatalog.get(name).set(json_file=write_coco(tmp_path, [{"id": 4, "name": "nut"}]))
    dataset = Dataset.get(name)
    assert dataset.instance_classes == [(0, 4, "nut")]
    assert dataset.task.name == "instance"


def test_wrong_annotations_are_left_out_up_to_a_share(name, tmp_path, caplog):
    categories = [{"id": i, "name": str(i)} for i in range(1, 5)]
    file = write_coco(tmp_path, categories)
    content = json.loads((tmp_path / "a.json").read_text())
    content["annotations"][2]["bbox"] = [1, 2, 3]
    (tmp_path / "a.json").write_text(json.dumps(content))
    register_coco_instances(name, {}, file, str(tmp_path))
    with pytest.raises(DatasetError, match=r"(?s)1 of 4 .*annotation 12: bbox.*MAX_DAMAGED 0.25"):
        Dataset.get(name)
    dataset = Dataset.get(name, 0.25)
    assert [a["id"] for a in dataset.records[0]["annotations"]] == [10, 11, 13]
    assert "1 of 4 annotations are wrong and left out" in caplog.text
    assert Dataset.get(name) is dataset, "decided once"


@pytest.mark.parametrize(
    ("records", "metadata", "message"),
    [
        ([{"height": 3}], {}, "a dict without 'file_name'"),
        ([{"file_name": Path("a.png")}], {}, r"'file_name' should be text, str\(path\)"),
        ([{"file_name": "a"}], {}, "task cannot be told"),
        ([{"file_name": "a", "annotations": [{"bbox": BOX}]}], {}, "'category_id' should be an"),
        ([of_one(bbox=[1, 2])], {}, "'bbox' should be four numbers"),
        ([{"file_name": "a", "annotations": []}], {"thing_classes": ["x", "x"]}, "lists 'x' more"),
        ([of_one(category_id=1)], {"thing_classes": ["x"]}, "category_id 1 is none of the 1"),
        ([of_one(category_id=-1)], {"thing_classes": ["x"]}, "category_id -1 is none"),
        ([of_one(segmentation=np.ones((9, 9)))], {}, r"polygons of 3 points .*mask\.encode"),
    ],
)
def test_what_later_stages_rely_on_is_checked(name, records, metadata, message):
    DatasetCatalog.register(name, lambda: records)
    MetadataCatalog.get(name).set(**metadata)
    with pytest.raises(DatasetError, match=message):
        Dataset.get(name)


def test_an_unknown_name_lists_similar_ones():
    with pytest.raises(DatasetError, match=r"'shapes_vale' is not registered.*shapes_val"):
        Dataset.get("shapes_vale")
    assert "shapes_vale" not in MetadataCatalog.list()


def test_panoptic_truth_is_the_same_from_records_and_from_the_file():
    standard, separated = (
        Dataset.get(name) for name in ("shapes_panoptic_val", "shapes_panoptic_val_separated")
    )
    assert (standard.separated, separated.separated) == (False, True)
    assert standard.panoptic.categories == separated.panoptic.categories
    for one, other in zip(standard.panoptic.records, separated.panoptic.records, strict=True):
        assert one["pan_seg_file_name"] == other["pan_seg_file_name"]
        keys = ("id", "category_id", "iscrowd", "area")
        first, second = ([[s[k] for k in keys] for s in r["segments_info"]] for r in (one, other))
        assert first == second
    assert standard.instance_records == Dataset.get("shapes_instance_val").records


def test_a_missing_metadata_entry_names_itself(name):
    DatasetCatalog.register(name, lambda: [{"file_name": "a", "sem_seg_file_name": "b"}])
    MetadataCatalog.get(name).stuff_classes = ["a"]
    with pytest.raises(DatasetError, match="no 'panoptic_json' in its metadata"):
        _ = Dataset.get(name).panoptic
    with pytest.raises(DatasetError, match="has no instances"):
        _ = Dataset.get(name).instance_records
