"""Every shipped configuration, bases too, builds from its name alone and predicts.

No dataset is on the disk and no network at hand. Models of more than SMALL parameters are built on
the meta device, and for real among the longer proofs.
"""

from __future__ import annotations

import socket

from seg_plugins import load_config
from seg_plugins.config import config_root

import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.modeling import build_model

NAMES = sorted(p.relative_to(config_root()).as_posix() for p in config_root().rglob("*.yaml"))
SMALL = 13_000_000


@pytest.fixture(autouse=True)
def nothing_at_hand(tmp_path, monkeypatch):
    """No dataset, no network, and nothing in the caches of weights."""

    def refused(*_, **__):
        raise OSError("a model was built from what only a dataset or a network has")

    for name in ("DETECTRON2_DATASETS", "FVCORE_CACHE", "HF_HOME", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setattr(DatasetCatalog, "get", refused)
    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)


def size_of(name: str) -> int:
    """The number of parameters, built without any memory for them."""
    cfg = load_config(name, ["MODEL.DEVICE", "meta"])
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_model(cfg).parameters())


def predict(name: str) -> None:
    """Build by the name and predict one image of another size than any crop."""
    cfg = load_config(name, ["MODEL.DEVICE", "cpu"])
    model = build_model(cfg).eval()
    image = torch.randint(256, (len(cfg.MODEL.PIXEL_MEAN), 64, 96), dtype=torch.uint8)
    with torch.no_grad():
        (found,) = model([{"image": image, "height": 50, "width": 70}])
    assert set(found) & {"sem_seg", "instances", "panoptic_seg"}
    if "sem_seg" in found:
        classes = max(cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, 1)
        assert found["sem_seg"].shape == (classes, 50, 70)
        assert found["sem_seg"].isfinite().all()
    if "instances" in found:
        assert found["instances"].image_size == (50, 70)
    if "panoptic_seg" in found:
        assert found["panoptic_seg"][0].shape == (50, 70)


def test_none_is_forgotten() -> None:
    assert len(NAMES) >= 69
    assert {"_base_/unet.yaml", "quickstart/unet_shapes.yaml"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_builds_and_predicts_if_small(name: str) -> None:
    if size_of(name) <= SMALL:
        predict(name)


def networks() -> list[str]:
    """One name for each different network; classes and weights make none of their own."""
    found = {}
    for name in NAMES:
        model = load_config(name).MODEL
        model.WEIGHTS, model.SEM_SEG_HEAD.NUM_CLASSES, model.ROI_HEADS.NUM_CLASSES = "", 2, 2
        model.SEM_SEG_HEAD.CLASS_WEIGHTS, model.PANOPTIC_FPN.THING_IDS = None, []
        found[model.dump()] = name
    return list(found.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", networks())
def test_predicts_if_large(name: str) -> None:
    if size_of(name) > SMALL:
        predict(name)
