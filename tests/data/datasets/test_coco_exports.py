"""What annotation tools write: read as it is meant, or refused by the annotation's name."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from seg_plugins.data import DatasetError
from seg_plugins.data.datasets.class_table import ClassTable, DatasetClass
from seg_plugins.data.datasets.coco_fields import category_map
from seg_plugins.data.datasets.coco_instances import read_instances
from seg_plugins.data.datasets.coco_panoptic import read_panoptic

import pytest
from coco_files import annotation, content

BOX = (10, 12, 20, 16)


def table(*names: str) -> ClassTable:
    return ClassTable(tuple(DatasetClass(name, (1, 2, 3), True) for name in names))


def read(folder: Path, file: dict, *names: str) -> tuple[list[dict], list[str]]:
    """All annotations that were read, and the messages of those that were not."""
    path = folder / "a.json"
    path.write_text(json.dumps(file))
    problems: list[DatasetError] = []
    records = read_instances(path, folder, table(*names or ("cell",)), problems.append)
    assert all(str(problem).startswith(f"{path}: ") for problem in problems)
    return [a for r in records for a in r["annotations"]], [str(p) for p in problems]


@pytest.mark.parametrize(
    ("field", "written", "meant"),
    [
        ("id", "7", 7),
        ("id", 7.0, 7),
        ("category_id", "1", 0),
        ("iscrowd", "false", 0),
        ("iscrowd", "True", 1),
        ("iscrowd", True, 1),
        ("iscrowd", "0", 0),
        ("iscrowd", 1.0, 1),
        ("iscrowd", None, 0),
        ("iscrowd", ..., 0),
        ("area", 5, 5.0),
        ("area", None, 320.0),
        ("area", ..., 320.0),
    ],
)
def test_forms_of_a_field(tmp_path, field, written, meant):
    (found,), problems = read(tmp_path, content([annotation(1, 1, BOX, **{field: written})]))
    assert (found[field], problems) == (meant, [])


def test_image_ids_in_quotes_on_either_side(tmp_path):
    for image_id, told in (("1", 1), (1, "1"), ("1", "1")):
        file = content([annotation(1, told, BOX)], images=1)
        file["images"][0]["id"] = image_id
        assert len(read(tmp_path, file)[0]) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "seven"}, r"annotation 'seven': id should be an integer, not 'seven'"),
        ({"id": ...}, r"annotation 1: id should be an integer, not None"),
        ({"image_id": True}, r"image_id should be an integer, not True"),
        ({"iscrowd": "maybe"}, r"iscrowd should be 0 or 1, not 'maybe'"),
        ({"iscrowd": 2}, r"iscrowd should be 0 or 1, not 2"),
        ({"area": [0]}, r"area holds \[0\] where a number is expected"),
        ({"area": -1}, r"area is -1, below 0"),
        ({"segmentation": [1, 1, 5, 1, 5, 5]}, r"one more pair of brackets: \[\["),
        ({"segmentation": [[32.0, 32.0]]}, r"a polygon of 2 numbers; three points are 6"),
        ({"segmentation": [], "bbox": [0, 0, 0, 0]}, r"nothing is annotated"),
        ({"segmentation": None, "bbox": [4, 4, 0, 3]}, r"nothing is annotated"),
    ],
)
def test_what_is_refused_is_named_and_the_rest_is_read(tmp_path, change, message):
    bad = annotation(3, 1, BOX) | change
    bad = {key: value for key, value in bad.items() if value is not ...}
    found, (problem,) = read(tmp_path, content([annotation(8, 1, BOX), bad]))
    assert [a["id"] for a in found] == [8]
    with pytest.raises(DatasetError, match=message):
        raise DatasetError(problem)


@pytest.mark.parametrize("empty", [[], {}, None, ...])
def test_boxes_alone_have_no_segmentation(tmp_path, empty):
    (found,), problems = read(
        tmp_path, content([annotation(1, 1, BOX, segmentation=empty, area=...)])
    )
    assert "segmentation" not in found
    assert (found["area"], problems) == (320.0, [])


def test_annotations_may_all_lack_ids(tmp_path):
    found, problems = read(tmp_path, content([annotation(..., 2, BOX), annotation(..., 1, BOX)]))
    assert sorted(a["id"] for a in found) == [1, 2]
    assert not problems


def test_annotations_of_a_refused_image_are_counted(tmp_path):
    file = content([annotation(1, 1, BOX), annotation(2, 2, BOX), annotation(3, 4, BOX)])
    file["images"][0]["file_name"] = "/home/x/1.png"
    found, problems = read(tmp_path, file)
    assert [a["id"] for a in found] == [2]
    assert f"it should be relative to {tmp_path}" in problems[0]
    assert "annotation 1: image_id 1 is an image with an error" in problems[1]
    assert "annotation 3: image_id 4 is none of the images" in problems[2]


def test_a_byte_order_mark(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(content([annotation(1, 1, BOX)])).encode())
    assert len(read_instances(path, tmp_path, table("cell"))) == 2


def test_without_annotations_the_truth_is_unknown(tmp_path):
    file = content([])
    path = tmp_path / "a.json"
    path.write_text(json.dumps(file))
    assert [r["annotations"] for r in read_instances(path, tmp_path, table("cell"))] == [[], []]
    del file["annotations"]
    path.write_text(json.dumps(file))
    assert not any("annotations" in r for r in read_instances(path, tmp_path, table("cell")))


def test_boxes_in_shares_of_the_image_are_refused(tmp_path):
    shares = (10 / 64, 12 / 64, 20 / 64, 16 / 64)
    for more in ({}, {"segmentation": ...}):
        with pytest.raises(DatasetError, match=r"all 2 boxes lie in 0\.\.1, .* in pixels"):
            read(tmp_path, content([annotation(i, i, shares, **more) for i in (1, 2)]))
    found, _ = read(tmp_path, content([annotation(1, 1, shares), annotation(2, 2, BOX)]))
    assert len(found) == 2  # a small object in the corner, in pixels


# ---------------------------------------------------------------------------------- categories


def test_an_unused_root_category_is_left_out_with_a_line(tmp_path, caplog):
    file = content([annotation(1, 1, BOX, category_id=2)])
    file["categories"] = [
        {"id": 0, "name": "fish", "supercategory": "none"},
        {"id": 1, "name": "cod", "supercategory": "fish"},
        {"id": 2, "name": "ray", "supercategory": "fish"},
    ]
    with caplog.at_level(logging.WARNING):
        (found,), problems = read(tmp_path, file, "cod", "ray")
    assert (found["category_id"], problems) == (1, [])
    assert "1 categories without an annotation are left out: 0 'fish'" in caplog.text
    file["annotations"][0]["category_id"] = 0
    with pytest.raises(
        DatasetError, match=r"category 0: name 'fish' is none of .* 2 classes, and 1"
    ):
        read(tmp_path, file, "cod", "ray")


def test_a_root_category_of_the_same_name(tmp_path):
    """The category with annotations counts, wherever it stands."""
    for order in (1, -1):
        file = content([annotation(1, 1, BOX, category_id=1)])
        file["categories"] = [{"id": 0, "name": "cell"}, {"id": 1, "name": "cell"}][::order]
        assert len(read(tmp_path, file)[0]) == 1
    file["annotations"].append(annotation(2, 2, BOX, category_id=0))
    with pytest.raises(DatasetError, match=r"name 'cell' is that of category 1 too"):
        read(tmp_path, file)


def test_two_names_of_one_id(tmp_path):
    file = content([annotation(1, 1, BOX)], ("nut", "bolt"))
    file["categories"][1]["id"] = 1
    with pytest.raises(DatasetError, match=r"id stands twice .*: for 'nut' and 'bolt'"):
        read(tmp_path, file, "nut", "bolt")


def test_splits_number_and_order_categories_as_they_like(tmp_path):
    file = content([annotation(1, 1, BOX, category_id=5), annotation(2, 2, BOX, category_id=3)])
    file["categories"] = [{"id": 5, "name": "bolt"}, {"id": 3, "name": "nut"}]
    found, _ = read(tmp_path, file, "nut", "bolt", "washer")
    assert [a["category_id"] for a in found] == [1, 0]


def test_ids_of_a_published_table_must_have_its_names():
    known = ClassTable(
        tuple(DatasetClass(n, (1, 2, 3), True, i) for i, n in ((3, "person"), (7, "cat")))
    )
    right = {"categories": [{"id": 7, "name": "a cat"}, {"id": "3", "name": "person"}]}
    assert category_map(right, known, "a.json") == {7: 1, 3: 0}
    wrong = {"categories": [{"id": 3, "name": "cat"}]}
    with pytest.raises(DatasetError, match=r"category 3: name is 'cat'; .* is person"):
        category_map(wrong, known, "a.json")


def test_things_and_stuff_are_those_of_the_classes(tmp_path):
    file = content([])
    file["categories"][0]["isthing"] = 0
    path = tmp_path / "a.json"
    path.write_text(json.dumps(file))
    with pytest.raises(DatasetError, match=r"isthing makes 'cell' stuff; .* it is a thing"):
        read_panoptic(path, tmp_path, tmp_path, table("cell"))
    file["categories"][0]["isthing"] = 1
    path.write_text(json.dumps(file))
    assert read_panoptic(path, tmp_path, tmp_path, table("cell")) == []


def test_segments_may_lack_box_and_area(tmp_path):
    file = content([], images=1)
    segment = {"id": "9", "category_id": 1, "iscrowd": "false", "bbox": None, "area": None}
    file["annotations"] = [{"image_id": "1", "file_name": "1.png", "segments_info": [segment]}]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(file))
    (record,) = read_panoptic(path, tmp_path, tmp_path, table("cell"))
    assert record["segments_info"] == [{"id": 9, "category_id": 0, "isthing": True, "iscrowd": 0}]
