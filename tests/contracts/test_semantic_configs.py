"""Every shipped configuration of a semantic system loads, builds and takes a training step."""

from __future__ import annotations

import re
from pathlib import Path

from seg_plugins import load_config
from seg_plugins.config import config_root

import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model
from training_step import training_step

SYSTEMS = {"FCN", "UNet", "SegNet", "DeepLabV3Plus", "PatchClassifier"}
NAMES = [
    path.relative_to(config_root()).as_posix()
    for path in sorted(config_root().glob("[!_]*/*.yaml"))
    if load_config(path).MODEL.META_ARCHITECTURE in SYSTEMS
]
FOLDERS = {name.split("/")[0] for name in NAMES}
# The same structure with fewer channels; Xception has no width.
SMALL = [
    *("MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.TIMM.PRETRAINED", False),
    # Counted from data, which is not here.
    *("MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS", None),
    *("MODEL.VGG.WIDTH", 16, "MODEL.VGG.FC_CHANNELS", 32, "MODEL.UNET.WIDTH", 16),
    *("MODEL.RESNETS.DEPTH", 50, "MODEL.RESNETS.WIDTH_PER_GROUP", 16),
    *("MODEL.RESNETS.RES2_OUT_CHANNELS", 64, "MODEL.PATCH.SAMPLES_PER_IMAGE", 16),
]


@pytest.mark.parametrize("name", NAMES)
def test_takes_a_training_step(name: str) -> None:
    cfg = load_config(name, SMALL)
    classes, size = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, (64, 64)
    channels = 1 if cfg.INPUT.FORMAT == "L" else 3
    batch = [
        {"image": torch.rand(channels, *size) * 255, "sem_seg": torch.randint(0, classes, size)}
        for _ in range(2)
    ]
    assert training_step(build_model(cfg), batch).isfinite()


@pytest.mark.parametrize("name", NAMES)
def test_agrees_with_its_datasets(name: str) -> None:
    cfg = load_config(name)
    head = cfg.MODEL.SEM_SEG_HEAD
    for dataset in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        metadata = MetadataCatalog.get(dataset)
        assert len(metadata.stuff_classes) == head.NUM_CLASSES
        assert metadata.ignore_label == head.IGNORE_VALUE
    assert cfg.OUTPUT_DIR != "./output"


def test_every_system_runs_on_the_embedded_dataset() -> None:
    quickstart = [load_config(name).MODEL.META_ARCHITECTURE for name in NAMES
                  if name.startswith("quickstart/")]  # fmt: skip
    assert set(quickstart) == SYSTEMS


def test_every_system_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "semantic_systems.md").read_text()
    assert all(f"| `{system}` |" in page for system in SYSTEMS)
    names = re.findall(r"`((?:\w+/)\w+)`", page)
    assert all(name + ".yaml" in NAMES for name in names if name.split("/")[0] in FOLDERS)
