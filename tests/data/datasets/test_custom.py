"""A user's own dataset from one YAML file."""

from __future__ import annotations

import json
from pathlib import Path

import seg_plugins
from seg_plugins.data import (
    DatasetError,
    InstanceMapper,
    SemanticMapper,
    apply_custom_dataset,
    build_mapper,
    register_custom_dataset,
)
from seg_plugins.data.datasets.catalogue import load_dataset

import cv2
import numpy as np
import pytest
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

EXAMPLE = Path(__file__).parents[3] / "datasets/custom.example.yaml"


def put(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


@pytest.fixture
def folder(tmp_path) -> Path:
    for i in range(10):
        put(tmp_path / f"images/{i}.jpg", np.full((6, 8, 3), 20 * i, np.uint8))
        put(tmp_path / f"masks/{i}.png", np.tile(np.array([0, 255], np.uint8), (6, 4)))
    return tmp_path


def write(folder: Path, **content) -> Path:
    base = {
        "name": "mine", "task": "semantic", "classes": ["background", "road"],
        "images": "images", "masks": "masks",
    }  # fmt: skip
    path = folder / "my.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in (base | content).items() if v is not None}))
    return path


def test_the_example_trains(folder):
    """The shipped example, as it stands, sets up a configuration."""
    (folder / "my.yaml").write_text(EXAMPLE.read_text())
    cfg = seg_plugins.get_cfg()
    cfg.DATASETS.CUSTOM = str(folder / "my.yaml")
    apply_custom_dataset(cfg)
    assert cfg.DATASETS.TRAIN == ("roads_train",)
    assert cfg.DATASETS.TEST == ("roads_val",)
    assert cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 2
    assert cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE == 254
    train, val = (DatasetCatalog.get(f"roads_{split}") for split in ("train", "val"))
    assert (len(train), len(val)) == (8, 2)
    assert not {r["file_name"] for r in train} & {r["file_name"] for r in val}
    cfg.INPUT.MIN_SIZE_TRAIN = (6,)
    cfg.INPUT.RANDOM_FLIP = "none"
    sample = build_mapper(cfg, True)(train[0])
    assert sample["sem_seg"][0].tolist() == [0, 1] * 4


def test_split_by_list(folder):
    (folder / "train.txt").write_text("1\n2\n")
    (folder / "val.txt").write_text("3\n")
    names = register_custom_dataset(write(folder, train="train.txt", val="val.txt"))
    assert [len(load_dataset(n)) for n in names.values()] == [2, 1]


def test_another_seed_is_another_split(folder):
    chosen = []
    for seed in (0, 0, 1):
        register_custom_dataset(write(folder, split={"val_fraction": 0.3, "seed": seed}))
        chosen.append([r["file_name"] for r in load_dataset("mine_val")])
    assert chosen[0] == chosen[1] != chosen[2]


def test_color_masks(folder):
    for i in range(10):
        colors = np.array([[0, 0, 0], [128, 64, 128], [1, 1, 1]], np.uint8)
        put(folder / f"masks/{i}.png", colors[np.tile([0, 1, 2, 0], (6, 2))][..., ::-1])
    classes = [
        {"name": "background", "color": [0, 0, 0]},
        {"name": "road", "color": [128, 64, 128]},
    ]
    register_custom_dataset(write(folder, labels="colours", classes=classes))
    record = load_dataset("mine_train")[0]
    read = MetadataCatalog.get("mine_train").sem_seg_loading_fn
    with pytest.raises(DatasetError, match=r"\[1, 1, 1\] \(12 pixels\) .*'unlisted: ignore'"):
        read(record["sem_seg_file_name"])
    register_custom_dataset(write(folder, labels="colours", classes=classes, unlisted="ignore"))
    ids = MetadataCatalog.get("mine_train").sem_seg_loading_fn(record["sem_seg_file_name"])
    assert ids[0].tolist() == [0, 1, 255, 0] * 2


def test_unlisted_values_are_named_with_their_pixels_or_ignored(folder):
    for i in range(10):
        put(folder / f"masks/{i}.png", np.tile(np.array([0, 75, 75, 76], np.uint8), (6, 2)))
    classes = [{"name": "background", "value": 0}, {"name": "road", "value": 76}]
    for unlisted, train in (("error", False), ("ignore", True)):
        register_custom_dataset(write(folder, classes=classes, unlisted=unlisted))
        record = load_dataset("mine_train")[0]
        if train:
            sample = SemanticMapper(is_train=True)(record)
            assert sample["sem_seg"][0].tolist() == [0, 255, 255, 1] * 2
            continue
        with pytest.raises(DatasetError, match=r"\.png: the value 75 \(24 pixels\)"):
            SemanticMapper(is_train=True)(record)


def test_0_255_masks_read_as_the_message_advises(folder):
    register_custom_dataset(write(folder, ignore_label=200))
    with pytest.raises(DatasetError, match="'value: 0' and 'value: 255'"):
        SemanticMapper(is_train=True)(load_dataset("mine_train")[0])
    classes = [{"name": "background", "value": 0}, {"name": "road", "value": 255}]
    register_custom_dataset(write(folder, classes=classes, ignore_label=254))
    sample = SemanticMapper(is_train=True)(load_dataset("mine_train")[0])
    assert sample["sem_seg"][0].tolist() == [0, 1] * 4


def test_every_spelling_of_a_suffix_is_read(folder):
    for number, suffix in ((0, ".JPG"), (1, ".jpeg"), (2, ".png"), (3, ".PNG")):
        path = folder / f"images/{number}.jpg"
        Image.open(path).save(folder / "new.png")
        (folder / "new.png").rename(path.with_suffix(suffix))
        path.unlink()
    register_custom_dataset(write(folder, split={"val_fraction": 0}))
    assert len(load_dataset("mine_train")) == 10
    register_custom_dataset(write(folder, image_suffix=".jpg", split={"val_fraction": 0}))
    with pytest.raises(DatasetError, match=r"masks/2\.png: no partner '2' in .*; so have 1 more"):
        load_dataset("mine_train")
    # A list tells stems, with or without suffix, and may come from Windows.
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        (folder / "train.txt").write_bytes("0\r\n1.jpg\r\n9 \r\n\r\n".encode(encoding))
        register_custom_dataset(write(folder, train="train.txt"))
        names = [Path(r["file_name"]).name for r in load_dataset("mine_train")]
        assert names == ["0.JPG", "1.jpeg", "9.jpg"]
    (folder / "train.txt").write_text("0\n17\n")
    with pytest.raises(DatasetError, match=r"train\.txt: '17' has no file 17\.\* in .*images"):
        load_dataset("mine_train")


def test_a_description_from_windows(folder):
    path = write(folder, images="other\\images", split={"val_fraction": 0})
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    (folder / "other").mkdir()
    (folder / "images").rename(folder / "other/images")
    register_custom_dataset(path)
    assert len(load_dataset("mine_train")) == 10


@pytest.mark.parametrize(
    ("samples", "message", "advice"),
    [
        (1, "0.2 of 1 samples leaves none to validate", {"val_fraction": 0}),
        (2, "0.2 of 2 samples leaves none to validate", {"val_fraction": 0.5}),
    ],
)
def test_a_part_without_samples_is_refused_before_training(folder, samples, message, advice):
    for i in range(samples, 10):
        (folder / f"images/{i}.jpg").unlink()
        (folder / f"masks/{i}.png").unlink()
    register_custom_dataset(write(folder))
    with pytest.raises(DatasetError, match=message):
        load_dataset("mine_train")
    names = register_custom_dataset(write(folder, split=advice))
    assert [len(load_dataset(name)) for name in names.values()] == [1] * samples


def test_images_and_masks_in_one_folder(folder):
    for i in range(10):
        (folder / f"masks/{i}.png").rename(folder / f"images/{i}_gt.png")
    register_custom_dataset(write(folder, masks="images"))
    with pytest.raises(DatasetError, match="tell them apart by image_suffix and mask_suffix"):
        load_dataset("mine_train")
    suffixes = {"image_suffix": ".jpg", "mask_suffix": "_gt.png"}
    register_custom_dataset(write(folder, masks="images", split={"val_fraction": 0}, **suffixes))
    found = [Path(r["sem_seg_file_name"]).name for r in load_dataset("mine_train")]
    assert found == [f"{i}_gt.png" for i in range(10)]


def coco_file(path: Path, *categories: tuple[int, str], **more) -> None:
    content = {
        "images": [{"id": 5, "file_name": "0.jpg", "height": 6, "width": 8}],
        "annotations": [],
        "categories": [{"id": i, "name": name, **more} for i, name in categories],
    }
    path.write_text(json.dumps(content))


def test_class_names_may_come_from_the_annotation_file(folder):
    coco_file(folder / "a.json", (40, "dog"), (17, "cat"))
    coco_file(folder / "b.json", (3, "dog"), (4, "cat"))
    parts = {split: {"images": "images", "json": f"{file}.json"}
             for split, file in (("train", "a"), ("val", "b"))}  # fmt: skip
    path = write(folder, task="instance", classes=None, images=None, masks=None, **parts)
    cfg = seg_plugins.get_cfg()
    cfg.DATASETS.CUSTOM = str(path)
    apply_custom_dataset(cfg)
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 2
    assert MetadataCatalog.get("mine_train").thing_classes == ["cat", "dog"]
    expected = {"mine_train": {17: 0, 40: 1}, "mine_val": {4: 0, 3: 1}}
    for name, ids in expected.items():
        DatasetCatalog.get(name)
        assert MetadataCatalog.get(name).thing_dataset_id_to_contiguous_id == ids
    coco_file(folder / "b.json", (3, "dog"), (4, "bird"))
    with pytest.raises(DatasetError, match=r"my\.yaml: classes is missing, and val.* bird; list"):
        register_custom_dataset(path)
    write(folder, task="instance", classes=["cat", "dog", "bird"], images=None, masks=None, **parts)
    register_custom_dataset(path)


def test_panoptic_classes_from_the_annotation_file(folder):
    coco_file(folder / "a.json", (9, "sky"), (4, "dog"), isthing=0)
    content = json.loads((folder / "a.json").read_text())
    content["categories"][1]["isthing"] = 1
    (folder / "a.json").write_text(json.dumps(content))
    part = {"images": "images", "panoptic": "pan", "json": "a.json"}
    path = write(folder, task="panoptic", classes=None, images=None, masks=None, train=part)
    register_custom_dataset(path)
    metadata = MetadataCatalog.get("mine_train")
    assert metadata.stuff_classes == ["dog", "sky"]
    assert metadata.thing_classes == ["dog"]


def test_coco_json_with_ids_of_its_own(folder):
    content = {
        "images": [{"id": 5, "file_name": "0.jpg", "height": 6, "width": 8}],
        "annotations": [
            {"id": 1, "image_id": 5, "category_id": 17, "bbox": [1, 1, 3, 2], "iscrowd": 0,
             "segmentation": [[1, 1, 4, 1, 4, 3, 1, 3]]},
        ],
        "categories": [{"id": 40, "name": "dog"}, {"id": 17, "name": "cat"}],
    }  # fmt: skip
    (folder / "a.json").write_text(json.dumps(content))
    part = {"images": "images", "json": "a.json"}
    path = write(
        folder, task="instance", classes=["dog", "cat"], images=None, masks=None, train=part
    )
    cfg = seg_plugins.get_cfg()
    cfg.DATASETS.CUSTOM = str(path)
    apply_custom_dataset(cfg)
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 2
    assert cfg.DATASETS.TEST == ()
    (record,) = DatasetCatalog.get("mine_train")
    assert record["annotations"][0]["category_id"] == 1
    # What the evaluators translate back with is known once the file is read.
    ids = MetadataCatalog.get("mine_train").thing_dataset_id_to_contiguous_id
    assert ids == {40: 0, 17: 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "detection"}, "task is 'detection'; it should be one of semantic, instance"),
        ({"classes": []}, "classes should be a list"),
        ({"classes": ["a", "a"]}, "a name stands twice"),
        ({"classes": [{"name": "a", "value": 1}, "b"]}, "a value for all of them or for none"),
        ({"classes": [{"name": "a", "color": [1, 2]}]}, "color must be three integers"),
        ({"classes": [{"name": "a", "value": "x"}]}, "value 'x' is no integer"),
        (
            {"classes": [{"name": "a", "value": 1}, {"name": "b", "value": 1}]},
            "the value 1 stands for two",
        ),
        ({"labels": "rgb"}, "labels is 'rgb'"),
        ({"labels": "colours"}, "labels are colours, and 2 of 2 classes have no color: backgr"),
        ({"unlisted": "drop"}, "unlisted is 'drop'"),
        ({"classes": None}, "classes should be a list"),
        ({"ignore_label": "none"}, "ignore_label is 'none'"),
        ({"ignore_label": 1}, "ignore_label is 1.*unlisted: ignore"),
        ({"name": 3}, "name is missing or no text"),
        ({"split": "random"}, "split should have val_fraction and seed"),
        ({"split": {"val_fraction": 0.2, "seed": "x"}}, "split.seed is 'x'"),
        ({"split": {"fraction": 0.2}}, "split: unknown key 'fraction'"),
        ({"train": "a.txt", "split": {"seed": 1}}, "give train and val, or split"),
        ({"image": "x"}, "unknown key 'image'"),
        ({"images": None}, "images is missing"),
        ({"split": {"val_fraction": 2}}, "val_fraction is 2"),
    ],
)
def test_mistakes_name_file_and_key(folder, change, message):
    with pytest.raises(DatasetError, match=rf"my\.yaml: .*{message}"):
        register_custom_dataset(write(folder, **change))


def test_yaml_that_would_run_code_is_refused(folder):
    (folder / "my.yaml").write_text("name: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(DatasetError, match="not readable as YAML"):
        register_custom_dataset(folder / "my.yaml")


def test_the_separated_panoptic_form(folder):
    things = {"images": [{"id": 5, "file_name": "0.jpg", "height": 6, "width": 8}],
              "annotations": [], "categories": [{"id": 40, "name": "dog"}]}  # fmt: skip
    (folder / "a.json").write_text(json.dumps(things))
    everything = {**things, "categories": [*things["categories"], {"id": 9, "name": "sky"}]}
    (folder / "b.json").write_text(json.dumps(everything))
    part = {"images": "images", "instances": "a.json", "labels": "masks", "panoptic": "pan",
            "json": "b.json"}  # fmt: skip
    classes = [{"name": "sky"}, {"name": "dog", "thing": True}]
    path = write(
        folder, task="panoptic_separated", classes=classes, images=None, masks=None, train=part
    )
    cfg = seg_plugins.get_cfg()
    cfg.DATASETS.CUSTOM = str(path)
    apply_custom_dataset(cfg)
    assert cfg.DATASETS.TRAIN == ("mine_train_separated",)
    assert cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 2
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 1
    assert cfg.MODEL.PANOPTIC_FPN.THING_IDS == []
    (record,) = DatasetCatalog.get("mine_train_separated")
    assert record["sem_seg_file_name"] == str(folder / "masks/0.png")
    metadata = MetadataCatalog.get("mine_train_separated")
    assert metadata.stuff_classes == ["things", "sky"]
    assert metadata.thing_dataset_id_to_contiguous_id == {40: 0}
    assert metadata.stuff_dataset_id_to_contiguous_id == {0: 0, 9: 1}
    assert type(build_mapper(cfg, True)) is InstanceMapper


@pytest.mark.parametrize(("as_one", "expected"), [(False, [1, 2]), (True, [])])
def test_the_labels_of_things_come_from_the_description(folder, as_one, expected):
    content = {"images": [], "annotations": [], "categories": [
        {"id": i + 1, "name": name, "isthing": int(name != "sky")}
        for i, name in enumerate(("sky", "dog", "cat"))
    ]}  # fmt: skip
    (folder / "p.json").write_text(json.dumps(content))
    part = {"images": "images", "panoptic": "pan", "json": "p.json"}
    classes = [{"name": "sky"}, {"name": "dog", "thing": True}, {"name": "cat", "thing": True}]
    cfg = seg_plugins.get_cfg()
    cfg.MODEL.PANOPTIC_FPN.THING_IDS = [0]
    cfg.INPUT.PANOPTIC_THINGS_AS_ONE = as_one
    cfg.DATASETS.CUSTOM = str(
        write(folder, task="panoptic", classes=classes, images=None, masks=None, train=part)
    )
    apply_custom_dataset(cfg)
    assert expected == cfg.MODEL.PANOPTIC_FPN.THING_IDS


def test_several_values_of_one_class(folder):
    classes = [{"name": "background", "value": 0}, {"name": "road", "value": [7, 255]}]
    register_custom_dataset(write(folder, classes=classes, ignore_label=254))
    record = load_dataset("mine_train")[0]
    assert set(np.unique(record["sem_seg_encoding"](record["sem_seg_file_name"]))) == {0, 1}
