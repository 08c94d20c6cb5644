"""Panoptic files from masks, on masks written by hand."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import seg_plugins
from seg_plugins.data import build_mapper, register_custom_dataset
from seg_plugins.evaluation.panoptic import PanopticEvaluator
from seg_plugins.io.panoptic import read_segment_ids

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

SCRIPT = Path(__file__).parents[2] / "datasets" / "prepare_panoptic_from_masks.py"
CLASSES = [
    {"id": 1, "name": "road", "isthing": 0},
    {"id": 4, "name": "car", "isthing": 1},
    {"id": 9, "name": "tree", "isthing": 0},
]
# Stuff in two places, two cars, a crowd of cars (no instance), void on the left.
SEMANTIC = np.array([[0, 1, 1, 4, 4, 1], [0, 9, 9, 4, 4, 1], [0, 1, 4, 4, 9, 9]], np.uint8)
INSTANCES = np.array([[0, 0, 0, 7, 7, 0], [0, 0, 0, 7, 300, 0], [0, 0, 0, 300, 0, 0]], np.uint16)


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[SCRIPT.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(script, monkeypatch):
    """Runs the command; returns its error message, or None."""

    def call(*args: object) -> str | None:
        monkeypatch.setattr(sys, "argv", [SCRIPT.name, *map(str, args)])
        try:
            script.main()
        except SystemExit as stop:
            return str(stop.code)
        return None

    return call


def write(folder: Path, semantic=SEMANTIC, instances=INSTANCES) -> list[object]:
    """Masks and an image; returns the arguments."""
    for name in ("images", "semantic", "instances"):
        (folder / name).mkdir()
    Image.new("RGB", semantic.shape[::-1]).save(folder / "images" / "a.jpg")
    Image.fromarray(semantic).save(folder / "semantic" / "a.png")
    Image.fromarray(instances).save(folder / "instances" / "a.png")
    (folder / "classes.json").write_text(json.dumps(CLASSES))
    parts = {"classes": "classes.json", "images": "images", "semantic": "semantic"}
    parts |= {"instances": "instances", "json": "panoptic.json", "output": "panoptic"}
    return [x for key, name in parts.items() for x in (f"--{key}", folder / name)]


def segments(folder: Path) -> list[dict]:
    (annotation,) = json.loads((folder / "panoptic.json").read_text())["annotations"]
    return annotation["segments_info"]


def test_stuff_is_merged_instances_are_apart_the_rest_is_a_crowd(tmp_path):
    command = [sys.executable, str(SCRIPT), *map(str, write(tmp_path))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "1 images, no error" in done.stdout
    ids = read_segment_ids(str(tmp_path / "panoptic" / "a.png"))
    found = {
        (s["category_id"], s["iscrowd"], s["area"], tuple(s["bbox"])) for s in segments(tmp_path)
    }
    assert found == {
        (1, 0, 5, (1, 0, 5, 3)),
        (9, 0, 4, (1, 1, 5, 2)),
        (4, 0, 3, (3, 0, 2, 2)),
        (4, 0, 2, (3, 1, 2, 2)),
        (4, 1, 1, (2, 2, 1, 1)),
    }
    assert (ids == 0).tolist() == (SEMANTIC == 0).tolist()
    assert ids[0, 1] == ids[2, 1] == ids[1, 5]


def test_the_files_are_read_and_score_100(tmp_path, run):
    assert run(*write(tmp_path)) is None
    description = {
        "name": "prepared",
        "task": "panoptic",
        "classes": [{"name": c["name"], "thing": bool(c["isthing"])} for c in CLASSES],
        "train": {"images": "images", "panoptic": "panoptic", "json": "panoptic.json"},
    }
    (tmp_path / "custom.yaml").write_text(json.dumps(description))
    names = register_custom_dataset(tmp_path / "custom.yaml")
    (record,) = DatasetCatalog.get(names["train"])
    cfg = seg_plugins.get_cfg()
    cfg.DATASETS.TRAIN = (names["train"],)
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.RANDOM_FLIP = (3,), "none"
    sample = build_mapper(cfg, True)(record)
    assert len(sample["instances"]) == 2  # crowds are no instance
    assert (sample["sem_seg"] == 255).sum() == 3

    ids = read_segment_ids(record["pan_seg_file_name"]).astype(np.int32)
    evaluator = PanopticEvaluator(names["train"])
    evaluator.reset()
    truth = [s for s in record["segments_info"] if not s["iscrowd"]]
    ids[~np.isin(ids, [s["id"] for s in truth])] = 0
    evaluator.process([record], [{"panoptic_seg": (torch.from_numpy(ids), truth)}])
    assert evaluator.evaluate()["panoptic_seg"]["PQ"] == 100
    for catalog in (DatasetCatalog, MetadataCatalog):
        catalog.pop(names["train"])


def test_ade20k_numbers_the_instances_of_each_class_anew(tmp_path, run):
    semantic = np.array([[4, 4, 5, 5], [4, 4, 5, 5]], np.uint8)
    instances = np.zeros((2, 4, 3), np.uint8)
    instances[..., 0] = [[1, 1, 2, 2]] * 2
    instances[..., 1] = [[1, 2, 1, 2]] * 2
    arguments = write(tmp_path, semantic, instances)
    (tmp_path / "classes.json").write_text(
        json.dumps([{"id": i, "name": str(i), "isthing": 1} for i in (4, 5)])
    )
    assert run(*arguments, "--format", "ade20k") is None
    assert [(s["category_id"], s["area"]) for s in segments(tmp_path)] == [(4, 2), (4, 2), (5, 2),
                                                                          (5, 2)]  # fmt: skip


def test_cityscapes_files_equal_the_official_ones(tmp_path, run):
    official = pytest.importorskip("cityscapesscripts.preparation.createPanopticImgs")
    labels = pytest.importorskip("cityscapesscripts.helpers.labels").labels
    values = np.array([[7, 7, 26001, 26001, 26], [23, 4, 26000, 24002, 26]], np.uint16)
    truth, images = tmp_path / "gtFine" / "val" / "ulm", tmp_path / "images" / "ulm"
    truth.mkdir(parents=True)
    images.mkdir(parents=True)
    stem = "ulm_000000_000019"
    Image.fromarray(values).save(truth / f"{stem}_gtFine_instanceIds.png")
    Image.new("RGB", (5, 2)).save(images / f"{stem}_leftImg8bit.png")
    (tmp_path / "official").mkdir()
    official.convert2panoptic(
        str(tmp_path / "gtFine"), str(tmp_path / "official"), useTrainId=False, setNames=["val"]
    )
    classes = [
        {"id": label.id, "name": label.name, "isthing": int(label.hasInstances)}
        for label in labels
        if not label.ignoreInEval
    ]
    (tmp_path / "classes.json").write_text(json.dumps(classes))
    error = run(
        *("--format", "cityscapes", "--classes", tmp_path / "classes.json"),
        *("--images", tmp_path / "images", "--instances", tmp_path / "gtFine" / "val"),
        *("--json", tmp_path / "ours.json", "--output", tmp_path / "ours"),
    )
    assert error is None
    ours = json.loads((tmp_path / "ours.json").read_text())["annotations"]
    expected = json.loads((tmp_path / "official" / "cityscapes_panoptic_val.json").read_text())
    assert [sorted(a["segments_info"], key=lambda s: s["id"]) for a in ours] == [
        a["segments_info"] for a in expected["annotations"]
    ]
    assert ours[0]["image_id"] == expected["annotations"][0]["image_id"]
    name = ours[0]["file_name"]
    assert name == expected["annotations"][0]["file_name"]
    folder = tmp_path / "official" / "cityscapes_panoptic_val"
    assert np.array_equal(
        read_segment_ids(str(tmp_path / "ours" / name)), read_segment_ids(str(folder / name))
    )


def test_instance_of_two_classes(tmp_path, run):
    instances = INSTANCES.copy()
    semantic = SEMANTIC.copy()
    semantic[0, 3] = 5
    arguments = write(tmp_path, semantic, instances)
    classes = [*CLASSES, {"id": 5, "name": "bus", "isthing": 1}]
    (tmp_path / "classes.json").write_text(json.dumps(classes))
    assert "a.jpg: instance 7 has pixels of the classes [4, 5]" in run(*arguments)
    assert run(*arguments, "--majority") is None
    assert (4, 3) in [(s["category_id"], s["area"]) for s in segments(tmp_path)]


def test_unknown_semantic_value(tmp_path, run):
    error = run(*write(tmp_path, SEMANTIC + np.uint8(100) * (SEMANTIC == 9)))
    assert "a.jpg: semantic values [109] are neither classes nor named by --void" in error


def test_void_pixels_and_empty_classes_are_counted(tmp_path, run, capsys):
    instances = INSTANCES.copy()
    instances[1, 1] = 9  # on a tree, which is no thing
    assert run(*write(tmp_path, instances=instances)) is None
    said = capsys.readouterr().out
    assert "void semantic values: 0 (3 pixels)\n" in said
    assert "instances without a pixel of a thing, left out: 1" in said
    assert "one off" not in said
    assert "without a segment" not in said


@pytest.mark.parametrize(
    ("ids", "values", "message"),
    [
        ((1, 2, 3), (0, 1, 2), "classes without a segment: 3 c"),  # masks count from 0
        ((0, 1, 2), (1, 2, 255), "classes without a segment: 0 a"),
        ((0, 1, 2), (1, 2, 3), None),  # not void by default
    ],
)
def test_ids_that_are_one_off_are_told(tmp_path, run, capsys, ids, values, message):
    arguments = write(tmp_path, np.array([values], np.uint8), np.zeros((1, 3), np.uint16))
    classes = [{"id": i, "name": n, "isthing": 0} for i, n in zip(ids, "abc", strict=True)]
    (tmp_path / "classes.json").write_text(json.dumps(classes))
    error = run(*arguments)
    if message is None:
        assert "semantic values [3] are neither classes nor named by --void" in error
        return
    said = capsys.readouterr().out
    assert message in said
    assert ("are the ids in --classes one off?" in said) == (values[0] == 0)


def test_masks_of_any_suffix_and_names_that_collide(tmp_path, run):
    arguments = write(tmp_path)
    (tmp_path / "images/a.jpg").rename(tmp_path / "images/a.JPEG")
    Image.fromarray(SEMANTIC).save(tmp_path / "semantic/a.tif")
    (tmp_path / "semantic/a.png").unlink()
    assert run(*arguments) is None
    assert len(segments(tmp_path)) == 5
    Image.new("RGB", (6, 3)).save(tmp_path / "images/a.png")
    assert "a.png: a.JPEG has the same name but for the suffix" in run(*arguments)
    (tmp_path / "images/a.png").rename(tmp_path / "images/b.png")
    assert "b.png: no mask b.png in" in run(*arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.append(dict(s[0])), "is listed twice"),
        (lambda s: s[0].update(area=99), "has 5 pixels, its area says 99"),
        (lambda s: s[0].update(bbox=[0, 0, 1, 1]), "its bbox says [0, 0, 1, 1]"),
        (lambda s: s[1].update(category_id=1), "stuff is one segment per image"),
        (lambda s: s[0].update(category_id=2), "unknown category 2"),
        (lambda s: s.append({**s[0], "id": 77, "category_id": 4}), "has no pixel"),
        (lambda s: s.pop(), "are not in segments_info"),
    ],
)
def test_damaged_files_are_found(tmp_path, run, change, message):
    assert run(*write(tmp_path)) is None
    path = tmp_path / "panoptic.json"
    content = json.loads(path.read_text())
    infos = content["annotations"][0]["segments_info"]
    infos.sort(key=lambda s: (s["category_id"] != 1, s["category_id"] != 9))
    change(infos)
    path.write_text(json.dumps(content))
    assert message in run("--check", path, "--output", tmp_path / "panoptic")
