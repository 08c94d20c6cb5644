"""Trained models by name: their files, found and verified."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import http.server
import threading
from pathlib import Path

from seg_plugins import zoo
from seg_plugins.config import ConfigError, load_config
from seg_plugins.io.weights import WeightsError, safetensors_bytes
from seg_plugins.zoo import models

import pytest
import torch
from detectron2.utils.file_io import PathManager

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = [
    model for model in zoo.MODELS.values() if (ROOT / "seg_plugins/zoo" / model.file).exists()
]


def test_every_row_is_complete_and_its_configuration_there():
    assert "nuclei" in zoo.MODELS
    for name, model in zoo.MODELS.items():
        assert model.name == name
        assert len(model.sha256) == 64
        assert model.licence
        assert model.value > 0
        assert model.dataset in load_config(model.config).DATASETS.TEST
    assert zoo.get("nuclei").preprocessing == {
        "INPUT.FORMAT": "RGB",
        "INPUT.MIN_SIZE_TEST": 640,
        "INPUT.MAX_SIZE_TEST": 1024,
        "MODEL.PIXEL_MEAN": [127.0] * 3,
        "MODEL.PIXEL_STD": [128.0] * 3,
    }


@pytest.mark.parametrize("model", SHIPPED, ids=lambda model: model.name)
def test_shipped_files_are_those_of_the_table_and_small(model):
    file = Path(PathManager.get_local_path(model.address))
    assert file.stat().st_size <= 10_000_000
    assert hashlib.sha256(file.read_bytes()).hexdigest() == model.sha256


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(ConfigError, match=r"no model 'nuclie'\. Nearest: nuclei"):
        zoo.get("nuclie")
    with pytest.raises(ConfigError, match="Nearest: nuclei"):
        PathManager.get_local_path("zoo://cells")


@pytest.fixture
def released(tmp_path, monkeypatch):
    """A model whose file is in a folder, not in the package."""
    (tmp_path / "release").mkdir()
    file = tmp_path / "release" / "other.safetensors"
    file.write_bytes(safetensors_bytes({"weight": torch.ones(3)}, {}))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    row = dataclasses.replace(
        zoo.get("nuclei"), name="other", file="other.safetensors", sha256=digest
    )
    monkeypatch.setitem(models.MODELS, "other", row)
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(zoo.FOLDER_VARIABLE, raising=False)
    return file


def test_files_of_a_release_come_from_a_folder(released, monkeypatch):
    with pytest.raises(WeightsError, match="not come with the package: set SEG_PLUGINS_WEIGHTS"):
        PathManager.get_local_path("zoo://other")
    monkeypatch.setenv(zoo.FOLDER_VARIABLE, str(released.parent.parent))
    with pytest.raises(WeightsError, match=f"and is not in {released.parent.parent}: set"):
        PathManager.get_local_path("zoo://other")
    monkeypatch.setenv(zoo.FOLDER_VARIABLE, str(released.parent))
    assert PathManager.get_local_path("zoo://other") == str(released)
    released.write_bytes(released.read_bytes() + b"\0")
    with pytest.raises(WeightsError, match=r"has SHA-256 .*of another release, or damaged"):
        PathManager.get_local_path("zoo://other")


def test_files_of_a_release_come_from_a_url(released, monkeypatch):
    handler = functools.partial(
        http.server.SimpleHTTPRequestHandler, directory=str(released.parent)
    )
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv(zoo.FOLDER_VARIABLE, f"http://127.0.0.1:{server.server_port}/")
        file = Path(PathManager.get_local_path("zoo://other"))
        assert file.read_bytes() == released.read_bytes()
        assert file != released
        server.shutdown()
    # From the cache, once fetched.
    assert PathManager.get_local_path("zoo://other") == str(file)
    file.write_bytes(b"cut off")
    with pytest.raises(WeightsError, match="of another release, or damaged"):
        PathManager.get_local_path("zoo://other")
