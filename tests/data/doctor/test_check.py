"""The doctor finds each kind of damage, names the file, and finds nothing in good data."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from seg_plugins.arguments.commands import command_parser
from seg_plugins.cli.check import run as check_command
from seg_plugins.data import register_custom_dataset
from seg_plugins.data.doctor import check_dataset

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("kind", ["shapes", "shapes_instance", "shapes_panoptic"])
def test_good_data_has_no_errors(kind):
    report = check_dataset(f"{kind}_val", other_names=(f"{kind}_train",), max_samples=40)
    assert report.problems == []
    assert (report.samples, report.checked) == (100, 40)
    if kind != "shapes_instance":
        assert sum(report.class_pixels.values()) + report.ignored_pixels == 40 * 128 * 128
        assert report.class_weights["line"] > report.class_weights["stripes"]
    if kind != "shapes":
        assert report.class_instances["disc"] > 5
        assert sum(report.object_sizes.values()) == sum(report.class_instances.values())


@pytest.mark.parametrize(
    ("dataset", "samples"),
    [
        ("camvid_train", 367),
        ("camvid_val", 101),
        ("isbi2012_train", 20),
        ("isbi2012_val", 4),
        ("dsb2018_train", 96),
        ("dsb2018_val", 24),
    ],
)
def test_real_data_has_no_errors(shared_data, monkeypatch, dataset, samples):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(shared_data))
    report = check_dataset(dataset)
    assert report.problems == [], report.table()
    assert report.samples == report.checked == samples


def test_real_annotation_files_have_no_errors(shared_data, tmp_path):
    """COCO instances and panoptic files, and folders whose names end differently."""
    coco = shared_data / "coco_tiny"
    panoptic = shared_data / "coco_panoptic_samples"
    folders = shared_data / "mmseg_pseudo/pseudo_dataset"
    annotated = json.loads((coco / "annotations/instances_train2017.json").read_text())
    segmented = json.loads((panoptic / "panoptic_examples.json").read_text())
    parts = {"images": "{}2017", "json": "annotations/instances_{}2017.json"}
    descriptions = [
        {"name": "real_coco", "task": "instance", "root": str(coco),
         "classes": [c["name"] for c in annotated["categories"]],
         **{s: {k: v.format(s) for k, v in parts.items()} for s in ("train", "val")}},
        {"name": "real_panoptic", "task": "panoptic", "root": str(panoptic),
         "classes": [{"name": c["name"], "thing": bool(c["isthing"])}
                     for c in segmented["categories"]],
         "train": {"images": "input_images", "panoptic": "panoptic_examples",
                   "json": "panoptic_examples.json"}},
        {"name": "real_folders", "task": "semantic", "root": str(folders), "images": "imgs",
         "masks": "gts", "image_suffix": "_img.jpg", "mask_suffix": "_gt.png",
         "classes": ["a", "b", "c", "d"],
         "train": "splits/train.txt", "val": "splits/val.txt"},
    ]  # fmt: skip
    found = {}
    for description in descriptions:
        (tmp_path / "my.yaml").write_text(json.dumps(description))  # JSON is YAML
        for name in register_custom_dataset(tmp_path / "my.yaml").values():
            report = check_dataset(name)
            assert report.errors == 0, report.table()
            found[name] = report.checked
    assert found == {
        "real_coco_train": 44, "real_coco_val": 28, "real_panoptic_train": 1,
        "real_folders_train": 4, "real_folders_val": 1,
    }  # fmt: skip


@pytest.fixture
def semantic(tmp_path):
    """Three good samples of two classes; each test damages one."""
    for i in range(3):
        for kind, pixels in (
            ("images", np.full((6, 8, 3), 40 * i, np.uint8)),
            ("masks", np.tile(np.array([0, 1], np.uint8), (6, 4))),
        ):
            (tmp_path / kind).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / kind / f"{i}.png"), pixels)
    (tmp_path / "my.yaml").write_text(
        "{name: ill, task: semantic, classes: [a, b], images: images, masks: masks, "
        "image_suffix: .png, split: {val_fraction: 0}}"
    )
    register_custom_dataset(tmp_path / "my.yaml")
    return tmp_path


def kinds(name: str = "ill_train", **kwargs) -> dict[str, str]:
    """Kind of problem -> its messages, a line each."""
    found: dict[str, str] = {}
    for problem in check_dataset(name, **kwargs).problems:
        found[problem.kind] = found.get(problem.kind, "") + problem.message + "\n"
    return found


def test_missing_label(semantic):
    (semantic / "masks/1.png").unlink()
    assert f"images/1.png: no partner '1' in {semantic / 'masks'}" in kinds()["annotation"]


def test_truncated_image(semantic):
    path = semantic / "images/1.png"
    path.write_bytes(path.read_bytes()[:60])
    assert "images/1.png" in kinds()["unreadable"]


def test_sizes_that_differ(semantic):
    cv2.imwrite(str(semantic / "masks/1.png"), np.zeros((8, 6), np.uint8))
    assert "8x6" in kinds()["size"]


def test_values_outside_the_classes(semantic):
    cv2.imwrite(str(semantic / "masks/1.png"), np.full((6, 8), 7, np.uint8))
    assert "masks/1.png: the value 7 (48 pixels) stands for none of the 2" in kinds()["label value"]


def test_masks_of_0_and_255_name_the_key(semantic):
    for i in range(3):
        cv2.imwrite(str(semantic / f"masks/{i}.png"), np.tile([[0, 255]], (6, 4)).astype(np.uint8))
    assert "value: 255" in kinds()["label value"]


def test_a_mask_that_is_a_color_picture(semantic):
    cv2.imwrite(str(semantic / "masks/1.png"), np.full((6, 8, 3), (0, 0, 1), np.uint8))
    assert "labels: colours" in kinds()["colour picture"]


def test_a_class_without_a_pixel_is_a_warning(semantic):
    for i in range(3):
        cv2.imwrite(str(semantic / f"masks/{i}.png"), np.zeros((6, 8), np.uint8))
    report = check_dataset("ill_train")
    assert [(p.message, p.is_error) for p in report.problems] == [
        ("1 of 2 classes have no pixel: b", False)
    ]
    assert report.class_pixels == {"a": 144, "b": 0}


def test_pixels_that_are_no_number_are_counted(semantic):
    (semantic / "images/1.png").unlink()
    pixels = np.zeros((6, 8, 3), np.float32)
    pixels[0, 0], pixels[0, 1, 2] = np.nan, np.inf
    np.save(semantic / "images/1.npy", pixels)
    description = (semantic / "my.yaml").read_text()
    (semantic / "my.yaml").write_text(description.replace("image_suffix: .png, ", ""))
    register_custom_dataset(semantic / "my.yaml")
    assert "1.npy: 2 of 48 pixels hold NaN or infinity" in kinds()["not finite"]


def test_a_rotation_of_the_image_alone_is_told(semantic):
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(semantic / "images/1.png", exif=exif)
    report = check_dataset("ill_train")
    assert [(p.kind, p.is_error) for p in report.problems] == [("rotated", False)]


def test_an_empty_label_is_a_warning(semantic):
    cv2.imwrite(str(semantic / "masks/1.png"), np.full((6, 8), 255, np.uint8))
    report = check_dataset("ill_train")
    assert [(p.kind, p.is_error) for p in report.problems] == [("empty", False)]


def test_the_same_image_twice_and_in_both_splits(semantic):
    (semantic / "images/1.png").write_bytes((semantic / "images/0.png").read_bytes())
    found = kinds(other_names=("ill_train",))
    assert "images/1.png" in found["duplicate"]
    assert "images/0.png" in found["leak"]


@pytest.fixture
def instances(tmp_path):
    """Writes a COCO file with one annotation that is changed, and checks it."""
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((10, 20, 3), np.uint8))
    (tmp_path / "my.yaml").write_text(
        "{name: ill_coco, task: instance, classes: [cat], train: {images: ., json: a.json}}"
    )

    def check(image: dict | None = None, **change) -> dict[str, str]:
        annotation = {
            "id": 1, "image_id": 3, "category_id": 1, "bbox": [2, 2, 4, 4], "iscrowd": 0,
            "segmentation": [[2, 2, 6, 2, 6, 6, 2, 6]],
        }  # fmt: skip
        content = {
            "images": [{"id": 3, "file_name": "a.png", "height": 10, "width": 20, **(image or {})}],
            "annotations": [annotation, {**annotation, "id": 2, **change}],
            "categories": [{"id": 1, "name": "cat"}],
        }
        (tmp_path / "a.json").write_text(json.dumps(content))
        register_custom_dataset(tmp_path / "my.yaml")
        return kinds("ill_coco_train")

    return check


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({}, None, None),
        ({"id": 1}, "annotation", "annotation 1: id stands twice"),
        ({"image_id": 4}, "annotation", "annotation 2: image_id 4 is none"),
        ({"category_id": 9}, "annotation", "category_id 9 is none"),
        ({"bbox": [1, 1, -2, 2]}, "annotation", "bbox has a negative side"),
        ({"bbox": [1, 1, float("nan"), 2]}, "annotation", "bbox holds nan"),
        ({"bbox": "1 1 2 2"}, "annotation", "bbox should be a list of 4 numbers"),
        ({"bbox": [1, 1, 0, 2]}, "box", "has no area"),
        ({"bbox": [15, 1, 9, 2]}, "box", "leaves the 10x20 image"),
        ({"segmentation": [[1, 1, 2, 2]]}, "annotation", "three points are 6"),
        ({"segmentation": [[1, 1, 2, 1, 2, 1e8]]}, "annotation", "far outside"),
        ({"segmentation": {"size": [10, 10], "counts": [100]}}, "annotation", "size"),
        ({"segmentation": {"size": [10, 20], "counts": [100]}}, "annotation", "fill 100 pixels"),
        ({"segmentation": {"size": [10, 20], "counts": "0"}}, "annotation", "fill 0 pixels"),
        ({"segmentation": {"size": [10, 20], "counts": "~~"}}, "annotation", "impossible"),
        ({"image": {"height": 11}}, "size", "annotation says 11x20"),
        ({"image": {"file_name": "../a.png"}}, "annotation", "leaves the dataset's folder"),
        ({"image": {"file_name": "b.png"}}, "missing", "b.png"),
    ],
)
def test_annotations(instances, change, kind, message):
    found = instances(**change)
    if kind is None:
        assert found == {}
    else:
        assert message in found[kind]


def test_panoptic_json_and_png_must_agree(tmp_path):
    ids = np.zeros((6, 8, 3), np.uint8)
    ids[:3, :, 2] = 7  # the red channel of OpenCV's order
    ids[3:, :, 2] = 9
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((6, 8, 3), np.uint8))
    (tmp_path / "pan").mkdir()
    cv2.imwrite(str(tmp_path / "pan/a.png"), ids)
    segments = [
        {"id": 7, "category_id": 1, "area": 23, "bbox": [0, 0, 8, 3], "iscrowd": 0},
        {"id": 8, "category_id": 1, "area": 24, "bbox": [0, 0, 8, 3], "iscrowd": 0},
    ]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 6, "width": 8}],
        "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": segments}],
        "categories": [{"id": 1, "name": "sky", "isthing": 0}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    (tmp_path / "my.yaml").write_text(
        "{name: ill_pan, task: panoptic, classes: [sky], "
        "train: {images: ., panoptic: pan, json: a.json}}"
    )
    register_custom_dataset(tmp_path / "my.yaml")
    messages = [p.message for p in check_dataset("ill_pan_train").problems]
    assert any("segment 7 has 24 pixels, its area says 23" in m for m in messages)
    assert any("segment 8 has no pixels" in m for m in messages)
    assert any("segments [9] are not in segments_info" in m for m in messages)


def test_a_loader_of_somebody_else_that_fails_is_reported():
    DatasetCatalog.register("ill_loader", lambda: [][1])
    MetadataCatalog.get("ill_loader").set(evaluator_type="sem_seg")
    with pytest.raises(IndexError):
        DatasetCatalog.get("ill_loader")
    DatasetCatalog.remove("ill_loader")
    DatasetCatalog.register("ill_loader", lambda: {}["a"])
    assert "its loader failed" in kinds("ill_loader")["annotation"]
    DatasetCatalog.remove("ill_loader")


def test_the_command_tells_by_its_exit_status(semantic, capsys):
    def run(*args: str) -> int:
        return check_command(command_parser("check").parse_args(args))

    report = semantic / "report.json"
    assert run("--custom", str(semantic / "my.yaml"), "--json", str(report)) == 0
    assert "ill_train: 3 samples, 3 checked, 0 errors" in capsys.readouterr().out
    assert json.loads(report.read_text())[0]["class_pixels"] == {"a": 72, "b": 72}
    assert run("--custom", str(semantic / "my.yaml"), "--dataset", "ill_train") == 0
    (semantic / "masks/1.png").unlink()
    assert run("--custom", str(semantic / "my.yaml")) == 1
    assert run("--dataset", f"folder:{semantic / 'images'},{semantic / 'masks'}") == 1
    assert "no partner '1'" in capsys.readouterr().out
    put = cv2.imwrite(str(semantic / "masks/1.png"), np.full((6, 8), 4, np.uint8))
    assert put
    name = f"folder:{semantic / 'images'},{semantic / 'masks'}"
    assert run("--dataset", name) == 0
    assert "class_4" in capsys.readouterr().out
    assert run("--dataset", name, "--num-classes", "2") == 1
    assert "the value 4 (48 pixels) stands for none of the 2 classes" in capsys.readouterr().out
    assert run("--dataset", name, "--against", "shapes_vla") == 1
    assert "shapes_val" in capsys.readouterr().out
    assert run("--dataset", "camvid_trian") == 1
    assert "camvid_train" in capsys.readouterr().out


def test_a_reader_that_stops_early_ends_the_command_quietly(semantic):
    script = f"{sys.executable} {ROOT / 'tools/check_dataset.py'} --custom {semantic / 'my.yaml'}"
    run = subprocess.run(
        ["bash", "-c", f"{script} | true"], capture_output=True, text=True, cwd=ROOT
    )
    assert run.stderr == ""
