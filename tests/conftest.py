"""Shared fixtures. Nothing here needs a GPU, the network or data from outside the repository."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import seg_plugins  # noqa: F401 - repairs Detectron2 before any test imports it

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from devices import DEVICES
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent


def pytest_configure(config: pytest.Config) -> None:
    """Tests never touch the user's datasets: they get a root of their own for the session."""
    import tempfile

    root = tempfile.mkdtemp(prefix="seg_plugins_datasets_")
    os.environ["DETECTRON2_DATASETS"] = root
    config.add_cleanup(lambda: shutil.rmtree(root, ignore_errors=True))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, visibly, what needs hardware that is not here."""
    if item.get_closest_marker("needs_cuda") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA GPU")


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs a test on each device: tensors that it makes without naming one are there."""
    torch.set_default_device(request.param if request.param != "cpu" else None)
    yield request.param
    torch.set_default_device(None)


@pytest.fixture(autouse=True)
def _restore_random_state() -> Iterator[None]:
    """Each test starts from seed 0 and leaves the generators as it found them."""
    saved = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    yield
    random.setstate(saved[0])
    np.random.set_state(saved[1])
    torch.set_rng_state(saved[2])


@pytest.fixture
def shared_data() -> Path:
    """The folder of small real datasets beside the checkout; the test is skipped without it."""
    folder = Path(os.environ.get("SEG_PLUGINS_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"needs the development data in {folder} (SEG_PLUGINS_SHARED_DATA)")
    return folder


@pytest.fixture(scope="session")
def dataset_root() -> Path:
    """DETECTRON2_DATASETS of the whole test session: a folder of its own."""
    return Path(os.environ["DETECTRON2_DATASETS"])


@pytest.fixture(scope="session")
def tiny_semantic() -> tuple[str, str]:
    """Names of a training (8 images) and a test (4) set: 48x40 pixels, 3 classes, 255 ignored.

    The class of a pixel shows in its colour, so that a few iterations lower the loss.
    """
    folder = Path(os.environ["DETECTRON2_DATASETS"]) / "tiny_semantic"
    names = ("tiny_semantic_train", "tiny_semantic_test")
    if names[0] not in DatasetCatalog.list():
        folder.mkdir()
        rng = np.random.default_rng(0)
        for name, count in zip(names, (8, 4), strict=True):
            records = [_tiny_record(folder, f"{name}_{i}", rng) for i in range(count)]
            DatasetCatalog.register(name, lambda records=records: records)
            MetadataCatalog.get(name).set(
                stuff_classes=["dark", "middle", "bright"],
                stuff_colors=[[0, 0, 80], [0, 120, 0], [255, 200, 200]],
                ignore_label=255,
                evaluator_type="sem_seg",
            )
    return names


def _tiny_record(folder: Path, stem: str, rng: np.random.Generator) -> dict[str, object]:
    height, width = 40, 48
    label = np.zeros((height, width), np.uint8)
    label[:, rng.integers(8, 24) :] = 1
    label[rng.integers(8, 30) :] = 2
    image = (label[..., None] * 80 + rng.integers(0, 60, (height, width, 3))).astype(np.uint8)
    label[:3] = 255
    image_file, label_file = folder / f"{stem}.png", folder / f"{stem}_label.png"
    Image.fromarray(image).save(image_file)
    Image.fromarray(label).save(label_file)
    return {
        "file_name": str(image_file),
        "sem_seg_file_name": str(label_file),
        "image_id": stem,
        "height": height,
        "width": width,
    }
