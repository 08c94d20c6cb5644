"""A continued run: what is the same, what may change, and what is said about it."""

from __future__ import annotations

import json
import logging
import os
import random
import signal

import seg_plugins
from seg_plugins.engine import Trainer, setup, training_state
from seg_plugins.engine.checks.run_folder import changes
from seg_plugins.engine.solver import build_optimizer
from seg_plugins.engine.training_state import load_optimizer, optimizer_state

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from torch import nn

QUICK = ("TEST.PICTURES", "0", "DATASETS.TEST", "()")


def start(args):
    trainer = Trainer(setup(args))
    trainer.resume_or_load(resume=args.resume)
    return trainer


def train(args, until=None):
    """Train; `until`: break off, as a killed process, after that iteration."""
    trainer = start(args)
    if until is not None:
        original = trainer.after_step

        def after_step():
            original()
            if trainer.iter == until:
                raise KeyboardInterrupt

        trainer.after_step = after_step
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
    else:
        trainer.train()
    return trainer


def same_state(a, b):
    for (name, x), y in zip(a.model.state_dict().items(), b.model.state_dict().values(),
                            strict=True):  # fmt: skip
        assert torch.equal(x, y), name
    states = [t._trainer.optimizer.state_dict()["state"] for t in (a, b)]
    assert states[0].keys() == states[1].keys()
    for i, values in states[0].items():
        for key, value in values.items():
            assert torch.equal(value, states[1][i][key])


def test_all_generators_go_on():
    def draw():
        return random.random(), np.random.rand(), np.random.randn(), torch.rand(2).tolist()

    np.random.randn()  # NumPy keeps the second of each pair of normal numbers
    state = training_state.capture_random_state()
    expected = draw()
    with training_state.untouched_random_state(seed=5):
        assert draw() != expected
    assert draw() != expected
    training_state.restore_random_state(state)
    assert draw() == expected


def test_dropout_average_and_evaluation_included_a_resumed_run_is_the_same(tiny_args, tmp_path):
    """Dropout draws from the global generator; evaluations between leave it alone."""
    opts = ("MODEL.SEM_SEG_HEAD.ASPP_DROPOUT", "0.5", "SOLVER.CHECKPOINT_PERIOD", "3",
            "SOLVER.MAX_ITER", "6", "MODEL_EMA.ENABLED", "True", "TEST.PICTURES", "0",
            "INPUT.COLOR_AUG_SSD", "True", "TEST.EVAL_PERIOD", "2",
            "TEST.LOSS", "True")  # fmt: skip
    no_evaluation = ("TEST.EVAL_PERIOD", "0", "TEST.LOSS", "False", "DATASETS.TEST", "()")
    whole = train(tiny_args(*opts, *no_evaluation, "OUTPUT_DIR", str(tmp_path / "whole")))
    train(tiny_args(*opts), until=4)
    second = train(tiny_args(*opts, "DATALOADER.NUM_WORKERS", "1", resume=True))
    assert second.start_iter == 3
    same_state(whole, second)
    for name, value in whole.ema.average.items():
        assert torch.equal(value, second.ema.average[name])
    lines = (tmp_path / "run" / "metrics.json").read_text().splitlines()
    logged = [e["iteration"] for e in map(json.loads, lines) if "total_loss" in e]
    assert logged == [0, 1, 2, 3, 4, 5], "iterations made twice are told twice"
    assert any("validation/total_loss" in line for line in lines)


def test_settings_that_change_are_told_and_do_what_is_said(tiny_args, caplog):
    train(tiny_args(*QUICK, "SOLVER.MAX_ITER", "2"))
    changed = ("SOLVER.MAX_ITER", "4", "SOLVER.BASE_LR", "0.02", "SOLVER.IMS_PER_BATCH", "4",
               "SOLVER.LR_SCHEDULER_NAME", "WarmupPolyLR")  # fmt: skip
    with caplog.at_level(logging.WARNING):
        trainer = start(tiny_args(*QUICK, *changed, resume=True))
    assert "SOLVER.MAX_ITER 4, which was 2: the schedule is stretched" in caplog.text
    assert "SOLVER.BASE_LR 0.02, which was 0.001" in caplog.text
    # Half of the new schedule is over, by the new rate.
    rates = [group["lr"] for group in trainer._trainer.optimizer.param_groups]
    assert rates == [pytest.approx(0.02 * 0.5**0.9)] * len(rates)
    # Two batches of two were seen; the next batch of four begins with the fifth sample.
    trainer._trainer.start(trainer.start_iter, trainer._drawn_before)
    batch = next(trainer._trainer._batches)
    assert [sample["stream_position"] for sample in batch] == [4, 5, 6, 7]
    trainer.train()
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())


def test_the_seed_of_an_unseeded_run_is_kept(tiny_args):
    first = setup(tiny_args("SEED", "-1")).SEED
    assert first == setup(tiny_args("SEED", "-1", resume=True)).SEED


def test_changes_compare_values_not_types():
    cfg = seg_plugins.get_cfg()
    former = {"SOLVER": {"STEPS": [30000], "MAX_ITER": 7, "NO_SUCH_KEY": 1}, "SEED": -1}
    assert changes(former, cfg) == {"SOLVER.MAX_ITER": (7, 40000)}


def test_another_number_of_classes_starts_those_layers_anew(caplog):
    def made(classes):
        model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, classes, 1))
        optimizer = build_optimizer(seg_plugins.get_cfg(), model)
        return optimizer, {p: n for n, p in model.named_parameters()}, model

    old, names, model = made(5)
    model(torch.ones(1, 3, 2, 2)).sum().backward()
    old.step()
    state = optimizer_state(old, names)
    new, names, model = made(7)
    with caplog.at_level(logging.WARNING):
        load_optimizer(new, state, names)
    assert "1.weight (another shape), 1.bias (another shape)" in caplog.text
    assert new.state[model[0].weight]["momentum_buffer"].abs().sum() > 0
    assert new.state[model[1].weight]["momentum_buffer"].abs().sum() == 0


def test_momenta_without_names_are_not_given_to_other_parameters(caplog):
    """Detectron2's files have the order only: with a parameter more it says nothing."""

    def made(layers):
        model = nn.Sequential(*(nn.Linear(2, 2, bias=False) for _ in range(layers)))
        optimizer = build_optimizer(seg_plugins.get_cfg(), model)
        model(torch.ones(1, 2)).sum().backward()
        return optimizer, {p: n for n, p in model.named_parameters()}

    old, _ = made(2)
    old.step()
    state = old.state_dict()
    same, names = made(2)
    load_optimizer(same, state, names)
    assert all(values["momentum_buffer"].any() for values in same.state.values())
    other, names = made(3)
    load_optimizer(other, state, names)
    assert not any(values["momentum_buffer"].any() for values in other.state.values())
    assert "of 2 parameters without their names, and 3 are trained" in caplog.text


@pytest.fixture
def four_classes(tiny_semantic):
    """The tiny training set with a class more, which no pixel has."""
    records = DatasetCatalog.get("tiny_semantic_train")
    DatasetCatalog.register("tiny_four_train", lambda: records)
    MetadataCatalog.get("tiny_four_train").set(
        stuff_classes=["dark", "middle", "bright", "none"], stuff_colors=[[0, 0, 0]] * 4,
        ignore_label=255, evaluator_type="sem_seg",
    )  # fmt: skip
    yield ("DATASETS.TRAIN", "('tiny_four_train',)", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "4")
    DatasetCatalog.remove("tiny_four_train")
    MetadataCatalog.remove("tiny_four_train")


def losses(folder):
    lines = map(json.loads, (folder / "metrics.json").read_text().splitlines())
    return {line["iteration"]: line["total_loss"] for line in lines if "total_loss" in line}


AVERAGED = ("MODEL_EMA.ENABLED", "True")


def test_a_run_is_resumed_with_another_number_of_classes(tiny_args, tmp_path, four_classes, caplog):
    """All but the layers of another size goes on: weights, momenta, averages, schedule, data."""
    first = train(tiny_args(*QUICK, *AVERAGED, "SOLVER.MAX_ITER", "2"))
    with caplog.at_level(logging.WARNING):
        second = start(tiny_args(*QUICK, *AVERAGED, *four_classes, "SOLVER.MAX_ITER", "4",
                                 resume=True))  # fmt: skip
    assert "NUM_CLASSES 4, which was 3: layers of another size start from random" in caplog.text
    assert "Without momentum, as at the start: sem_seg_head." in caplog.text
    assert second.start_iter == 2
    fresh = {n for n, p in second.model.named_parameters()
             if p.shape != first.model.state_dict()[n].shape}  # fmt: skip
    assert fresh
    assert all(n.startswith("sem_seg_head.") for n in fresh)
    moments = second._trainer.optimizer.state
    for name, parameter in second.model.named_parameters():
        old = first.model.state_dict()[name]
        assert name in fresh or torch.equal(parameter, old), name
        parts = [v for k, v in moments.get(parameter, {}).items() if k != "step"]
        assert any(bool(v.any()) for v in parts) != (name in fresh), name
    second.train()
    found = losses(tmp_path / "run")
    assert sorted(found) == [0, 1, 2, 3]
    assert np.isfinite(list(found.values())).all()
    for values in (second.model.state_dict(), second.ema.average):
        assert all(torch.isfinite(v).all() for v in values.values())


def test_weights_are_tuned_for_another_number_of_classes(tiny_args, tmp_path, four_classes):
    """The averaged weights are taken, those of another size drawn anew; training starts at 0."""
    first = train(tiny_args(*QUICK, *AVERAGED, "SOLVER.MAX_ITER", "2"))
    weights = str(tmp_path / "run" / "model_final.pth")
    tuned = tmp_path / "tuned"
    second = start(tiny_args(*QUICK, *AVERAGED, *four_classes, "MODEL.WEIGHTS", weights,
                             "OUTPUT_DIR", str(tuned)))  # fmt: skip
    assert second.start_iter == 0
    own, average = second.model.state_dict(), first.ema.average
    same = [name for name, value in own.items() if value.shape == average[name].shape]
    assert 0 < len(own) - len(same) < 5
    assert all(torch.equal(own[name], average[name]) for name in same)
    second.train()
    found = losses(tuned)
    assert sorted(found) == [0, 1, 2]
    assert np.isfinite(list(found.values())).all()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_the_iteration_and_the_run_goes_on_from_there(tiny_args, tmp_path, number):
    opts = (*QUICK, "SOLVER.MAX_ITER", "4", "MODEL.SEM_SEG_HEAD.ASPP_DROPOUT", "0.5")
    whole = train(tiny_args(*opts, "OUTPUT_DIR", str(tmp_path / "whole")))
    trainer = start(tiny_args(*opts))
    original = trainer.run_step

    def run_step():
        if trainer.iter == 1:
            os.kill(os.getpid(), number)
        original()

    trainer.run_step = run_step
    before = signal.getsignal(number)
    trainer.train()
    assert signal.getsignal(number) == before
    assert (tmp_path / "run" / "last_checkpoint").read_text() == "model_0000001.pth"
    assert not (tmp_path / "run" / "model_final.pth").exists()
    again = start(tiny_args(*opts, resume=True))
    assert again.start_iter == 2
    again.train()
    same_state(whole, again)


def test_training_ends_early_when_nothing_is_gained(tiny_args, tmp_path):
    trainer = start(tiny_args(
        "SOLVER.MAX_ITER", "30", "TEST.EVAL_PERIOD", "1", "TEST.PICTURES", "0", "TEST.LOSS", "True",
        "SOLVER.BASE_LR", "0.0", "SOLVER.EARLY_STOPPING.PATIENCE", "2",
        "SOLVER.EARLY_STOPPING.MIN_GAIN", "1e9", "TEST.BEST_METRIC", "validation/total_loss",
    ))  # fmt: skip
    trainer.train()
    assert trainer.iter <= 4
    assert (tmp_path / "run" / "model_final.pth").is_file()
    assert (tmp_path / "run" / "model_best.pth").is_file()


def test_the_rate_is_scaled_by_the_batch_once(tiny_args):
    opts = ("SOLVER.BASE_LR", "0.016", "SOLVER.REFERENCE_BATCH", "16", "SOLVER.IMS_PER_BATCH", "4")
    cfg = setup(tiny_args(*opts))
    assert pytest.approx(0.004) == cfg.SOLVER.BASE_LR
    assert cfg.SOLVER.REFERENCE_BATCH == 4
