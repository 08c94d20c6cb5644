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
