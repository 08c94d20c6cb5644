"""The moving average against its formula, and as evaluation and checkpoints use it."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

from seg_plugins.engine import Checkpointer, hooks
from seg_plugins.engine.training_state import ModelEMA
from seg_plugins.io.weights.layout import EMA_KEY

import pytest
import torch
from torch import nn


def set_to(model, value):
    nn.init.constant_(model.weight, value)


def test_it_follows_the_formula():
    model = nn.Linear(1, 1, bias=False)
    set_to(model, 1.0)
    average = ModelEMA(model, decay=0.5)
    expected = 1.0
    for step, value in enumerate([3.0, -2.0, 7.0, 7.0, 0.5, 1.0], start=1):
        set_to(model, value)
        average.update(model)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
        assert average.average["weight"].item() == pytest.approx(expected, rel=1e-6)


def test_the_model_has_it_within_a_block_only():
    model = nn.BatchNorm1d(1)
    average = ModelEMA(model, decay=0.9)
    set_to(model, 5.0)
    with average.applied(model):
        assert model.weight.item() == 1.0
    assert model.weight.item() == 5.0


def test_buffers_are_copied():
    model = nn.BatchNorm1d(1)
    average = ModelEMA(model, decay=0.9)
    model(torch.tensor([[1.0], [3.0]]))
    average.update(model)
    assert torch.equal(average.average["running_mean"], model.running_mean)
    assert average.average["num_batches_tracked"] == 1


def test_weights_are_read_averaged_and_a_run_continues_with_its_own(tmp_path):
    model = nn.Linear(1, 1, bias=False)
    set_to(model, 1.0)
    average = ModelEMA(model, decay=0.9)
    set_to(model, 5.0)
    trainer = nn.Module()  # stands for anything with a state
    Checkpointer(model, str(tmp_path), trainer=trainer, ema=average).save("model_0000000")
    assert EMA_KEY == "ema"
    Checkpointer(model, "").load(str(tmp_path / "model_0000000.pth"))
    assert model.weight.item() == 1.0
    set_to(model, 0.0)
    again = ModelEMA(model, decay=0.9)
    Checkpointer(model, str(tmp_path), trainer=trainer, ema=again).resume_or_load("", resume=True)
    assert model.weight.item() == 5.0
    assert again.average["weight"].item() == 1.0


def test_pictures_are_drawn_by_the_weights_that_are_evaluated(monkeypatch):
    applied, seen = [], []

    @contextlib.contextmanager
    def ema_applied():
        applied.append(True)
        yield
        applied.pop()

    hook = hooks.PicturesHook(cfg=None)
    hook.trainer = SimpleNamespace(complete=True, model=nn.Identity(), ema_applied=ema_applied)
    monkeypatch.setattr(hooks, "write_pictures", lambda cfg, model: seen.append(list(applied)))
    hook.after_train()
    assert seen == [[True]]
