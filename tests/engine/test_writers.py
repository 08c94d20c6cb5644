"""Metrics in memory and on their way out."""

from __future__ import annotations

import json
import sys
import types

import seg_plugins
from seg_plugins.config import ConfigError
from seg_plugins.engine.writers import WandbWriter, bound_history, build_writers

import pytest
from detectron2.utils.events import EventStorage


def test_the_history_of_a_metric_is_bounded():
    with EventStorage() as storage:
        bound_history(storage)
        for i in range(3000):
            storage.iter = i
            storage.put_scalar("loss", float(i))
    assert len(storage.history("loss").values()) == 1000
    assert storage.history("loss").latest() == 2999.0
    assert storage.history("loss").global_avg() == pytest.approx(1499.5)


def test_lines_of_iterations_that_are_made_again_are_dropped(tmp_path):
    cfg = seg_plugins.get_cfg()
    cfg.OUTPUT_DIR = str(tmp_path)
    lines = [json.dumps({"iteration": i}) for i in range(6)]
    (tmp_path / "metrics.json").write_text("\n".join(lines) + '\n{"iterat')
    for writer in build_writers(cfg, start_iter=4, max_iter=9):
        if hasattr(writer, "close"):
            writer.close()
    kept = (tmp_path / "metrics.json").read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in kept] == [0, 1, 2, 3]


def test_wandb_gets_each_metric_once(tmp_path, monkeypatch):
    sent, begun = [], {}

    class Run:
        def log(self, values, step):
            sent.append((step, values))

        def finish(self):
            sent.append("end")

    def init(**options):
        begun.update(options)
        return Run()

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    cfg = seg_plugins.get_cfg()
    cfg.OUTPUT_DIR, cfg.WANDB.PROJECT = str(tmp_path / "camvid"), "streets"
    writer = WandbWriter(cfg)
    assert (begun["project"], begun["name"]) == ("streets", "camvid")
    assert begun["config"]["SOLVER"]["MAX_ITER"] == 40000
    with EventStorage() as storage:
        for i in range(2):
            storage.iter = i
            storage.put_scalar("lr", 0.5 + i, smoothing_hint=False)
            writer.write()
        writer.write()
    writer.close()
    assert sent == [(0, {"lr": 0.5}), (1, {"lr": 1.5}), "end"]


def test_wandb_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match="pip install wandb"):
        WandbWriter(seg_plugins.get_cfg())


def test_metrics_that_are_no_numbers_are_null(tmp_path):
    cfg = seg_plugins.get_cfg()
    cfg.OUTPUT_DIR = str(tmp_path / "run")
    writers = build_writers(cfg, start_iter=0, max_iter=3)
    with EventStorage() as storage:
        storage.put_scalars(mIoU=float("nan"), ratio=float("inf"), loss=0.5, smoothing_hint=False)
        writers[1].write()
        storage.iter = 1
        storage.put_scalar("loss", 0.25, smoothing_hint=False)
        writers[1].write()
    for writer in writers:
        writer.close()

    def refuse(name):
        raise ValueError(name)

    lines = (tmp_path / "run" / "metrics.json").read_text().splitlines()
    assert [json.loads(line, parse_constant=refuse) for line in lines] == [
        {"iteration": 0, "mIoU": None, "ratio": None, "loss": 0.5},
        {"iteration": 1, "loss": 0.25},
    ]
