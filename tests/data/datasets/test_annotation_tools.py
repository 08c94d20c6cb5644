"""Instances as annotation tools write them: YOLO's text, labelme, VGG Image Annotator."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

from seg_plugins.data import Dataset
from seg_plugins.data.datasets.class_table import parse_class_table
from seg_plugins.data.datasets.custom import register_custom_dataset
from seg_plugins.data.datasets.labelme import Labelme
from seg_plugins.data.datasets.via import Via
from seg_plugins.data.errors import DatasetError
from seg_plugins.io.masks import to_bitmask

import numpy as np
import pytest
import yaml
from PIL import Image

HEIGHT, WIDTH = 20, 40


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(path)


def records(folder: Path, **keys: object) -> list[dict]:
    """What a description of these keys gives."""
    path = folder / "my.yaml"
    path.write_text(yaml.safe_dump({"name": f"tools_{folder.name}", "task": "instance", **keys}))
    return list(Dataset.get(register_custom_dataset(path)["train"]).records)


def pixels(annotation: dict) -> list[tuple[int, int]]:
    mask = to_bitmask(annotation["segmentation"], HEIGHT, WIDTH)
    return sorted(zip(*(index.tolist() for index in mask.nonzero()), strict=True))


SQUARE = [(y, x) for y in range(4, 8) for x in range(10, 16)]  # rows 4-7, columns 10-15


# --------------------------------------------------------------------------------------- YOLO


def yolo(folder: Path, text: str, **keys: object) -> list[dict]:
    picture(folder / "images" / "a.jpg")
    picture(folder / "images" / "sub" / "b.png")
    (folder / "labels").mkdir(exist_ok=True)
    (folder / "labels" / "a.txt").write_text(text)
    part = {"images": "images", "labels": "labels"}
    return records(folder, format="yolo", classes=["cat", "dog"], train=part, **keys)


def test_yolos_polygons_and_boxes(tmp_path):
    """x = 10/40 to 16/40, y = 4/20 to 8/20; the box is of the same corners."""
    text = "1 0.25 0.2 0.4 0.2 0.4 0.4 0.25 0.4\n\n0 0.325 0.3 0.15 0.2\n"
    first, second = yolo(tmp_path, text)
    assert second["annotations"] == []  # an image without a text file
    assert (first["height"], first["width"]) == (HEIGHT, WIDTH)
    polygon, box = first["annotations"]
    assert (polygon["category_id"], box["category_id"]) == (1, 0)
    assert pixels(polygon) == SQUARE
    assert polygon["area"] == 24
    assert polygon["bbox"] == pytest.approx([10, 4, 6, 4])
    assert box["bbox"] == pytest.approx([10, 4, 6, 4])
    assert "segmentation" not in box


@pytest.mark.parametrize("keys", [{"labels": "labels"}, {"images": "images"}])
def test_folders_beside_train_are_told_their_place(tmp_path, keys):
    with pytest.raises(DatasetError, match=r"my\.yaml: .* as in train: \{images: \.\.\., labels:"):
        records(tmp_path, format="yolo", classes=["cat"], **keys)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2 0.5 0.5 0.1 0.1", r"a\.txt: line 1: class 2 is none of the 2 .*0 to 1"),
        ("0 5 5 12 5 12 9", r"line 1: numbers should be fractions .* found 5 to 12"),
        ("0 0.1 0.1 0.2 0.2 0.3", "5 numbers after the class; a box has 4, a polygon 6 or more"),
        ("0 0.5 0.5 0 0.1", "the box has no area"),
        ("0 0.5 0.5 0.5 0.5 0.5 0.5", "covers no pixel of the image of 40 x 20"),
        ("cat 0.5 0.5 0.1 0.1", "'cat 0.5 0.5 0.1 0.1' is not a class and numbers"),
    ],
)
def test_yolos_lines_that_are_wrong_are_named(tmp_path, text, message):
    with pytest.raises(DatasetError, match=message):
        yolo(tmp_path, text)


def test_yolos_text_without_an_image_is_named(tmp_path):
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "gone.txt").write_text("0 0.5 0.5 0.1 0.1")
    with pytest.raises(DatasetError, match=r"gone\.txt: no image gone\.\* in "):
        yolo(tmp_path, "0 0.5 0.5 0.1 0.1")


def test_a_set_without_val_is_parted_at_random_by_its_seed(tmp_path):
    for name in "cdefgh":
        picture(tmp_path / "images" / f"{name}.jpg")
    split = {"val_fraction": 0.25, "seed": 3}
    parts = [yolo(tmp_path, "0 0.5 0.5 0.1 0.1", split=split, name="tools_parted")]
    description = tmp_path / "my.yaml"
    parts.append(list(Dataset.get(register_custom_dataset(description)["val"]).records))
    names = [{record["file_name"] for record in part} for part in parts]
    assert [len(part) for part in names] == [6, 2]
    assert not names[0] & names[1]


# ------------------------------------------------------------------------------------- labelme


def labelme(folder: Path, *shapes: dict, **keys: object) -> list[dict]:
    picture(folder / "photos" / "a.png")
    content = {"version": "5.4", "imagePath": "..\\photos\\a.png", "imageData": None,
               "imageHeight": HEIGHT, "imageWidth": WIDTH, "shapes": list(shapes)}  # fmt: skip
    (folder / "json").mkdir(exist_ok=True)
    (folder / "json" / "a.json").write_text(json.dumps(content))
    return records(folder, format="labelme", train={"labels": "json", "images": "photos"}, **keys)


def shape(label: str, points: list, kind: str = "polygon", **more: object) -> dict:
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, **more}


BOX = [[10, 4], [16, 8]]


def test_labelmes_shapes(tmp_path):
    part = np.zeros((4, 6), np.uint8)
    part[:, 2:] = 255
    stored = io.BytesIO()
    Image.fromarray(part).save(stored, "PNG")
    (record,) = labelme(
        tmp_path,
        shape("dog", [[10, 4], [16, 4], [16, 8], [10, 8]]),
        shape("cat", BOX, "rectangle"),
        shape("cat", [[20, 10], [20, 15]], "circle"),
        shape("dog", BOX, "mask", mask=base64.b64encode(stored.getvalue()).decode()),
        shape("cat", [[0, 0], [2, 2]], "rectangle", group_id=7),
        shape("cat", [[4, 0], [6, 2]], "rectangle", group_id=7),
    )
    found = record["annotations"]
    # Classes are the labels, sorted.
    assert [a["category_id"] for a in found] == [1, 0, 0, 1, 0]
    assert pixels(found[0]) == pixels(found[1]) == SQUARE
    assert found[2]["area"] == pytest.approx(np.pi * 25, rel=0.05)
    assert pixels(found[3]) == [(y, x) for y, x in SQUARE if x >= 12]
    assert pixels(found[4]) == [(y, x) for y in (0, 1) for x in (0, 1, 4, 5)]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (shape("bird", BOX, "rectangle"), r"shapes\[0\]: label 'bird' is none of the classes cat"),
        (shape("cat", BOX, "line"), "a line of 2 points is no area; draw a polygon"),
        (shape("cat", [[1, 1], [2, "x"], [3, 3]]), "'x' is no number"),
        (shape("cat", [[1, 1], [2, 2]]), "three corners or more, this has 2"),
        (shape("cat", BOX, "mask", mask="no image"), "its mask is no image"),
    ],
)
def test_labelmes_shapes_that_are_wrong_are_named(tmp_path, wrong, message):
    with pytest.raises(DatasetError, match=message) as caught:
        labelme(tmp_path, wrong, classes=["cat"])
    assert "a.json" in str(caught.value)


def test_labelmes_image_is_looked_for_by_its_name_only(tmp_path):
    """The path in the file is that of another disk, and may lead out of the dataset."""
    labelme(tmp_path, shape("cat", BOX, "rectangle"))
    path = tmp_path / "json" / "a.json"
    content = json.loads(path.read_text())
    picture(tmp_path / "secret.png")
    path.write_text(json.dumps({**content, "imagePath": "../secret.png"}))
    with pytest.raises(DatasetError, match=r"a\.json: no image .*photos.secret\.png"):
        records(tmp_path, format="labelme", train={"labels": "json", "images": "photos"})


# ----------------------------------------------------------------------------------------- VIA


def via(folder: Path, regions: object, *, project: bool = False, **keys: object) -> list[dict]:
    picture(folder / "images" / "a.png")
    item = {"filename": "a.png", "size": 99, "regions": regions, "file_attributes": {}}
    content = {"a.png99": item}
    stored = {"_via_settings": {}, "_via_img_metadata": content} if project else content
    (folder / "via.json").write_text(json.dumps(stored))
    part = {"images": "images", "json": "via.json"}
    return records(folder, format="via", train=part, **{"classes": ["cat"], **keys})


def region(attributes: dict | None = None, **drawn: object) -> dict:
    return {"shape_attributes": drawn, "region_attributes": attributes or {}}


POLYGON = {"name": "polygon", "all_points_x": [10, 16, 16, 10], "all_points_y": [4, 4, 8, 8]}


@pytest.mark.parametrize("project", [False, True])
@pytest.mark.parametrize("numbered", [False, True])
def test_vias_regions(tmp_path, project, numbered):
    drawn = [
        region(**POLYGON),
        region(name="rect", x=10, y=4, width=6, height=4),
        region(name="circle", cx=20, cy=10, r=5),
        region(name="ellipse", cx=20, cy=10, rx=8, ry=4, theta=0.5),
    ]
    regions = {str(i): item for i, item in enumerate(drawn)} if numbered else drawn
    (record,) = via(tmp_path, regions, project=project)
    found = record["annotations"]
    assert pixels(found[0]) == pixels(found[1]) == SQUARE
    assert found[2]["area"] == pytest.approx(np.pi * 25, rel=0.05)
    assert found[3]["area"] == pytest.approx(np.pi * 32, rel=0.05)


def test_vias_attributes_name_the_class(tmp_path):
    drawn = [region({"kind": "dog", "note": "left"}, **POLYGON), region({"kind": "cat"}, **POLYGON)]
    (record,) = via(tmp_path, drawn, classes=["cat", "dog"])
    assert [a["category_id"] for a in record["annotations"]] == [1, 0]
    with pytest.raises(DatasetError, match=r"regions\[0\]: its attributes .* classes cat, dog"):
        via(tmp_path, [region({"kind": "bird"}, **POLYGON)], classes=["cat", "dog"])


def test_vias_points_are_no_area(tmp_path):
    with pytest.raises(DatasetError, match="a 'point' is no area"):
        via(tmp_path, [region(name="point", cx=1, cy=2)])


# ------------------------------------------------------------------------------------ the others


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"format": "cvat"}, "format is 'cvat'; it should be one of coco, yolo, labelme, via"),
        ({"format": "yolo", "task": "semantic"}, "format is 'yolo'; it should be one of coco"),
        ({"format": "yolo", "task": "panoptic"}, "format is 'yolo'; it should be one of coco"),
        ({"format": "yolo", "train": {"images": "images"}}, "labels is missing"),
        ({"format": "yolo", "classes": None}, "classes"),
    ],
)
def test_descriptions_that_are_wrong(tmp_path, keys, message):
    picture(tmp_path / "images" / "a.png")
    part = {"images": "images", "labels": "labels"}
    given = {"classes": ["cat"], "train": part, **keys}
    with pytest.raises(DatasetError, match=message):
        records(tmp_path, **{key: value for key, value in given.items() if value is not None})


def test_the_balloons_of_via_are_those_of_their_coco_files(shared_data, tmp_path):
    folder = shared_data / "balloon"
    keys = {"root": str(folder), "classes": ["balloon"]}
    part = {"images": "train", "json": "train/via_region_data.json"}
    found = {
        Path(r["file_name"]).name: r for r in records(tmp_path, format="via", train=part, **keys)
    }
    wanted = []
    for split in ("train", "val"):
        part = {"images": "train", "json": f"annotations/instances_{split}.json"}
        wanted += records(tmp_path, name=f"tools_balloon_{split}", train=part, **keys)
    assert len(found) == len(wanted) == 61
    for record in wanted:
        ours = found[Path(record["file_name"]).name]["annotations"]
        assert [a["area"] for a in ours] == [a["area"] for a in record["annotations"]]
        assert [a["segmentation"] for a in ours] == [
            a["segmentation"] for a in record["annotations"]
        ]


def test_the_hundred_images_of_coco128(shared_data, tmp_path):
    part = {"images": "images/train2017", "labels": "labels/train2017"}
    found = records(
        tmp_path, root=str(shared_data / "coco128-seg"), format="yolo", train=part,
        classes=[f"class {i}" for i in range(80)],
    )  # fmt: skip
    assert len(found) == 100
    objects = [a for record in found for a in record["annotations"]]
    assert len(objects) == 778
    assert len({a["category_id"] for a in objects}) == 69


# ---------------------------------------------------------------------------------- hostile files

ODD = (None, True, -1, 1e30, float("nan"), "", "cat", [], {}, [[]], {"a": 1}, [1, 2], "../x")


def places(value: object, path: tuple = ()) -> list[tuple]:
    """The way to every value of a JSON document."""
    if not isinstance(value, dict | list):
        return []
    found = []
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        found += [(*path, key), *places(item, (*path, key))]
    return found


def changed(content: object, path: tuple, new: object) -> object:
    copy = json.loads(json.dumps(content))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = new
    return copy


@pytest.mark.parametrize("form", ["labelme", "via"])
def test_an_odd_value_anywhere_is_read_or_refused_by_name(tmp_path, form):
    """Every value of a file in turn becomes each of ODD: nothing but DatasetError comes of it."""
    if form == "labelme":
        stored = io.BytesIO()
        Image.new("L", (6, 4), 255).save(stored, "PNG")
        mask = base64.b64encode(stored.getvalue()).decode()
        labelme(tmp_path, shape("cat", BOX, "rectangle"), shape("cat", BOX, "mask", mask=mask),
                shape("cat", [[1, 1], [9, 1], [9, 9]], group_id=1), classes=["cat"])  # fmt: skip
        path, layout = tmp_path / "json" / "a.json", Labelme("json", "photos")
    else:
        drawn = [region({"kind": "cat"}, **POLYGON),
                 region({"kind": {"dog": True}}, name="circle", cx=20, cy=10, r=5)]  # fmt: skip
        via(tmp_path, drawn, classes=["cat", "dog"])
        path, layout = tmp_path / "via.json", Via("images", "via.json")
    names = [{"name": name, "isthing": True, "label_value": None} for name in ("cat", "dog")]
    table = parse_class_table({"classes": names, "ignore_label": 255}, "test")
    content = json.loads(path.read_text())
    refused, unnamed, read = 0, 0, 0
    for place in places(content):
        for new in ODD:
            path.write_text(json.dumps(changed(content, place, new)))
            try:
                layout.records(tmp_path, table)
                read += 1
            except DatasetError as error:
                refused += path.name in str(error)
                unnamed += path.name not in str(error)
    assert unnamed == 0
    assert refused > 100
    assert read > 40  # what does not matter: versions, notes


def test_a_corner_far_away_is_refused_before_it_costs_memory(tmp_path):
    with pytest.raises(DatasetError, match="a corner lies far outside the image of 40 x 20"):
        labelme(tmp_path, shape("cat", [[0, 0], [1e9, 0], [5, 5]]))


def test_a_mask_larger_than_the_image_is_not_decoded(tmp_path):
    stored = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(stored, "PNG")
    mask = base64.b64encode(stored.getvalue()).decode()
    with pytest.raises(DatasetError, match="its mask reaches over the border"):
        labelme(tmp_path, shape("cat", BOX, "mask", mask=mask))


def test_ticked_boxes_of_via_name_the_class(tmp_path):
    drawn = [region({"kind": {"dog": True, "cat": False}}, **POLYGON)]
    (record,) = via(tmp_path, drawn, classes=["cat", "dog"])
    assert record["annotations"][0]["category_id"] == 1
