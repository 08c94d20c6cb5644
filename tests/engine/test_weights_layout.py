"""Weights out of the layouts in which other libraries keep them."""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path

from seg_plugins.engine import Checkpointer
from seg_plugins.io.weights import WeightsError, read_weights
from seg_plugins.io.weights.layout import spellings

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn


def model() -> nn.Module:
    return nn.ModuleDict({"backbone": nn.Linear(3, 2), "model": nn.Linear(2, 2)})


WEIGHTS = {name: torch.randn(value.shape) for name, value in model().state_dict().items()}


def prefixed(prefix: str) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": value for name, value in WEIGHTS.items()}


LAYOUTS = {
    "plain": WEIGHTS,
    "model": {"model": WEIGHTS, "iteration": 7},
    "state_dict": {"state_dict": WEIGHTS, "epoch": 3, "optimizer": {"state": {0: torch.ones(3)}}},
    "model_state_dict": {"model_state_dict": WEIGHTS},
    "nested": {"model": {"state_dict": WEIGHTS, "arch": "r18"}},
    "another name": {"generator": WEIGHTS, "epoch": 1},
    "module": {"state_dict": prefixed("module.")},
    "compiled": {"model": prefixed("_orig_mod.")},
    "both": prefixed("module._orig_mod."),
    "both again": prefixed("_orig_mod.module."),
    "lightning": {"state_dict": {**prefixed("model."), "criterion.weight": torch.ones(3)}},
    "averaged": {**prefixed("module."), "n_averaged": torch.tensor(4)},
    "compiled part": {f"{n.replace('.', '._orig_mod.')}": v for n, v in WEIGHTS.items()},
    "distributed part": {f"{n.replace('.', '.module.')}": v for n, v in WEIGHTS.items()},
    "numpy number": {"model": WEIGHTS, "best": np.float64(0.5), "rng": np.random.get_state()},
    "namespace": {"model": WEIGHTS, "args": argparse.Namespace(lr=0.1, out=Path("runs/1"))},
    "arrays": {"model": {name: value.numpy() for name, value in WEIGHTS.items()}},
    "parameters": {"model": {name: nn.Parameter(value) for name, value in WEIGHTS.items()}},
}


@pytest.mark.parametrize("content", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("legacy", [False, True])
def test_a_layout_is_read_whole(tmp_path, content, legacy):
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    loaded = model()
    Checkpointer(loaded).load(str(tmp_path / "w.pth"), complete=True)
    assert all(torch.equal(loaded.state_dict()[n], v) for n, v in WEIGHTS.items())


def test_formats_are_known_by_their_content(tmp_path):
    arrays = {name: value.numpy() for name, value in WEIGHTS.items()}
    big = {name: value.astype(">f4") for name, value in arrays.items()}
    save_file(WEIGHTS, tmp_path / "a.pth")
    torch.save(WEIGHTS, tmp_path / "b.pkl")
    np.savez(tmp_path / "c.npz", **arrays)
    (tmp_path / "d.pkl").write_bytes(pickle.dumps({"state_dict": big}))
    for name in ("a.pth", "b.pkl", "c.npz", "d.pkl"):
        found = read_weights(tmp_path / name).tensors
        assert all(torch.equal(found[n], v) for n, v in WEIGHTS.items()), name


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"generator": WEIGHTS, "discriminator": WEIGHTS}, "arrays in each of generator, discrimi"),
        ({"epoch": 3, "lr": 0.1}, "no arrays; it holds epoch, lr"),
        ([torch.ones(1)], "holds a list"),
        ({}, "no arrays"),
    ],
)
def test_what_is_unclear_is_not_guessed(tmp_path, content, message):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=message):
        read_weights(tmp_path / "w.pth")


def test_a_dict_that_holds_itself_ends(tmp_path):
    content: dict = {"epoch": 1}
    content["model"] = content
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(WeightsError, match="no arrays"):
        read_weights(tmp_path / "w.pkl")


def test_other_files_are_called_by_what_they_are(tmp_path):
    files = {
        "lfs.pth": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
        "page.pth": (b"\n<!DOCTYPE html><html>", "web page"),
        "empty.pth": (b"", "could not be read"),
        "text.safetensors": (b"no weights at all", "not a whole .safetensors"),
    }
    torch.jit.save(torch.jit.script(nn.Linear(1, 1)), tmp_path / "script.pt")
    for name, (content, _) in files.items():
        (tmp_path / name).write_bytes(content)
    for name, message in [*((n, m) for n, (_, m) in files.items()), ("script.pt", "TorchScript")]:
        with pytest.raises(WeightsError, match=message) as caught:
            read_weights(tmp_path / name)
        assert name in str(caught.value)


def test_the_model_own_name_goes_before_a_stripped_one():
    assert spellings("module.model.conv.weight") == [
        "module.model.conv.weight", "model.conv.weight", "conv.weight", "model.conv.weight",
        "representation.module.model.conv.weight",
    ]  # fmt: skip
