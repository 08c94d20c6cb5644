"""Every shipped panoptic configuration loads, builds and takes a training step."""

from __future__ import annotations

from pathlib import Path

from seg_plugins import load_config
from seg_plugins.config import config_root
from seg_plugins.engine.checks.consistency import check_classes

import pytest
import torch
from detectron2 import model_zoo
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Instances
from training_step import training_step

SYSTEMS = {"PanopticSegmentor", "BottomUpPanopticSegmentor", "AdaptIS"}
ONE_STAGE = {"OneStagePanopticSegmentor"}
NAMES = [
    path.relative_to(config_root()).as_posix()
    for path in sorted(config_root().glob("[!_]*/panoptic*.yaml"))
]
SMALL = [
    *("MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.TIMM.PRETRAINED", False),
    *("MODEL.VGG.WIDTH", 16, "MODEL.FPN.OUT_CHANNELS", 32, "MODEL.ROI_BOX_HEAD.FC_DIM", 64),
    *("MODEL.RESNETS.WIDTH_PER_GROUP", 16, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64),
]


def sample(num_labels: int, thing_ids: list[int], num_things: int) -> dict:
    size = (96, 128)
    labels = torch.randint(0, num_labels, size)
    masks = torch.zeros(2, *size, dtype=torch.bool)
    masks[0, 10:40, 20:60] = True
    masks[1, 50:90, 70:120] = True
    classes = torch.tensor([0, num_things - 1])
    labels[masks.any(dim=0)] = 0  # all things, or the first of them
    for mask, number in zip(masks, classes.tolist(), strict=True):
        labels[mask] = thing_ids[number] if thing_ids else 0
    instances = Instances(size)
    instances.gt_masks = BitMasks(masks)
    instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
    instances.gt_classes = classes
    image = torch.randint(256, (3, *size), dtype=torch.uint8)
    return {"image": image, "sem_seg": labels, "instances": instances}


def test_there_is_one_for_each_setting() -> None:
    shapes = {name for name in NAMES if name.startswith("shapes/")}
    heads = (
        "fcn",
        "unet",
        "segnet",
        "deeplabv3plus",
        "sem_seg_fpn",
        "bottom_up",
        "solo_v2",
        "adaptis",
    )
    assert shapes == {f"shapes/panoptic_{head}.yaml" for head in heads}
    for dataset in ("coco", "cityscapes"):
        kinds = {load_config(n).MODEL.META_ARCHITECTURE for n in NAMES if n.startswith(dataset)}
        assert kinds >= SYSTEMS


@pytest.mark.parametrize("name", NAMES)
def test_takes_a_training_step(name: str) -> None:
    cfg = load_config(name)
    deep = [] if cfg.MODEL.RESNETS.DEPTH < 50 else SMALL[-4:]
    cfg.merge_from_list([*SMALL[:-4], *deep])
    model = build_model(cfg)
    assert type(model).__name__ in SYSTEMS | ONE_STAGE
    things = cfg.MODEL.ROI_HEADS.NUM_CLASSES
    labels = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    batch = [sample(labels, cfg.MODEL.PANOPTIC_FPN.THING_IDS, things) for _ in range(2)]
    assert training_step(model, batch).isfinite()


@pytest.mark.parametrize("name", NAMES)
def test_agrees_with_its_datasets(name: str) -> None:
    cfg = load_config(name)
    check_classes(cfg)  # as before each training
    things = cfg.MODEL.PANOPTIC_FPN.THING_IDS
    for dataset in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        metadata = MetadataCatalog.get(dataset)
        assert len(metadata.stuff_classes) == cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
        assert metadata.ignore_label == cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
        if dataset.startswith("shapes"):  # its annotation files are generated on first use
            assert things == [
                i for i, c in enumerate(metadata.stuff_classes) if c in metadata.thing_classes
            ]
            continue
        ids = sorted(set(metadata.thing_dataset_id_to_contiguous_id.values()))
        assert len(ids) == cfg.MODEL.ROI_HEADS.NUM_CLASSES
        if things:
            assert things == ids
    assert cfg.OUTPUT_DIR != "./output"


@pytest.mark.parametrize("schedule", ["1x", "3x"])
def test_coco_configurations_are_the_model_zoos(schedule: str) -> None:
    zoo = model_zoo.get_config(f"COCO-PanopticSegmentation/panoptic_fpn_R_50_{schedule}.yaml")
    ours = load_config(f"coco/panoptic_fpn_r50_{schedule}.yaml")
    for key in ("SEM_SEG_HEAD", "RPN", "FPN", "ANCHOR_GENERATOR"):
        for name, value in zoo.MODEL[key].items():
            if value == "SemSegFPNHead":  # the same parameters, with this package's losses
                value = "SemSegPyramidHead"
            assert ours.MODEL[key][name] == value, f"MODEL.{key}.{name}"
    assert ours.MODEL.PANOPTIC_FPN.COMBINE == zoo.MODEL.PANOPTIC_FPN.COMBINE
    for key in ("STEPS", "MAX_ITER", "BASE_LR", "IMS_PER_BATCH"):
        assert ours.SOLVER[key] == zoo.SOLVER[key], key
    assert ours.INPUT.MIN_SIZE_TRAIN == zoo.INPUT.MIN_SIZE_TRAIN
    assert ours.DATALOADER.FILTER_EMPTY_ANNOTATIONS == zoo.DATALOADER.FILTER_EMPTY_ANNOTATIONS
    with torch.device("meta"):
        ours.MODEL.DEVICE = zoo.MODEL.DEVICE = "meta"
        shapes = [
            {key: value.shape for key, value in build_model(cfg).state_dict().items()}
            for cfg in (ours, zoo)
        ]
    assert shapes[0] == shapes[1]


def test_every_configuration_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "panoptic.md").read_text()
    assert all(name.removesuffix(".yaml") in page for name in NAMES)
