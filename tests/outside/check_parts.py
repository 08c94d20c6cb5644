"""The stranger's own tests: each part against its contract, as docs/extending.md shows."""

import os
from pathlib import Path

from seg_plugins import load_config
from seg_plugins.testing import (
    check_dataset,
    check_evaluator,
    check_instance_system,
    check_loss,
    check_mapper,
    check_semantic_head,
)

import numpy as np
import outside_parts.dataset
import outside_parts.evaluator
import outside_parts.head
import outside_parts.loss
import outside_parts.mapper
import outside_parts.representation
import outside_parts.system  # noqa: F401 - each registers its part
import pytest
import torch
from PIL import Image


@pytest.fixture(scope="module", autouse=True)
def stripes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    os.environ["DETECTRON2_DATASETS"] = str(folder)
    for split in ("train", "val"):
        Path(folder, "stripes", split).mkdir(parents=True)
        for i in range(3):
            label = np.zeros((64, 80), np.uint8)
            label[:, 10 * i : 10 * i + 15 + i] = 1
            stem = f"{folder}/stripes/{split}/{i}"
            Image.fromarray(np.stack([label * 150 + i, label, label], -1)).save(f"{stem}.png")
            Image.fromarray(label).save(f"{stem}_label.png")


def config(*opts):
    small = [
        *("MODEL.TIMM.NAME", "test_resnet", "MODEL.TIMM.OUTPUT_STRIDE", 16),
        *("MODEL.META_ARCHITECTURE", "SemanticSystem", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 2),
        *("MODEL.SEM_SEG_HEAD.NAME", "PyramidPoolingHead"),
        *("MODEL.SEM_SEG_HEAD.LOSS_TYPE", "cross_entropy + tversky(alpha=0.3)"),
        *("DATASETS.TRAIN", ("stripes_train",), "DATASETS.TEST", ("stripes_val",)),
    ]
    return load_config("quickstart/deeplabv3plus_r18_shapes.yaml", [*small, *opts])


def test_head():
    check_semantic_head(config())


def test_head_in_a_panoptic_system():
    opts = ["MODEL.SEM_SEG_HEAD.NAME", "PyramidPoolingHead", "MODEL.FPN.OUT_CHANNELS", 32]
    check_semantic_head(load_config("shapes/panoptic_sem_seg_fpn.yaml", opts))


def test_loss():
    check_loss("tversky")
    check_loss("2 * tversky(alpha=0.3)")


def test_dataset():
    check_dataset("stripes_train")


def test_mapper():
    check_mapper(config("INPUT.MAPPER", "BrightnessMapper"))


def test_evaluator():
    def perfect(record):
        labels = torch.from_numpy(np.array(Image.open(record["sem_seg_file_name"])))
        return {"sem_seg": torch.stack([labels == 0, labels == 1]).float()}

    def poor(record):
        return {"sem_seg": torch.ones(2, record["height"], record["width"])}

    results = check_evaluator(config(), "stripes_val", perfect, poor)
    assert results["stripes"]["area_error"] == 0


def test_system():
    opts = [
        *("MODEL.META_ARCHITECTURE", "ConnectedComponents"),
        *("MODEL.BACKBONE.NAME", "build_resnet_backbone", "MODEL.RESNETS.OUT_FEATURES", ["res2"]),
    ]
    check_instance_system(load_config("shapes/mask_rcnn_r18_fpn.yaml", opts))


def test_representation():
    opts = ["MODEL.META_ARCHITECTURE", "OneStageInstanceSegmentor"]
    opts += ["MODEL.ONE_STAGE.REPRESENTATION", "Discs"]
    check_instance_system(load_config("shapes/solo_v2_r18.yaml", opts))
    panoptic = ["MODEL.ONE_STAGE.REPRESENTATION", "Discs", "MODEL.FPN.OUT_CHANNELS", 32]
    check_semantic_head(load_config("shapes/panoptic_sem_seg_fpn.yaml", panoptic))
