"""Runs of tools/train_net.py for a table: trained one after the other, then read."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from seg_plugins.config import load_config
from seg_plugins.data import apply_custom_dataset
from seg_plugins.engine import Trainer

from detectron2.config import CfgNode
from torch import nn

TRAIN_NET = Path(__file__).with_name("train_net.py")
SECONDS = re.compile(r"Total inference time: .*\((\S+) s / iter")


def train(config: str, run: Path, opts: Sequence[str] = ()) -> None:
    """Train into a folder by a process of its own, whose largest memory is noted.

    A run that is there already is only read.

    Args:
        config: as of ``--config-file``.
        run: the folder.
        opts: KEY VALUE pairs.

    Raises:
        SystemExit: the training failed.
    """
    if (run / "model_final.pth").is_file():
        return
    command = [sys.executable, str(TRAIN_NET), "--config-file", config, "OUTPUT_DIR", str(run)]
    print(f"== {run}", flush=True)
    process = subprocess.Popen([*command, *opts])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{run}: training failed, see {run / 'log.txt'}")
    (run / "memory.json").write_text(json.dumps({"max_rss_kib": usage.ru_maxrss}))


def load(run: Path, opts: Sequence[str] = ()) -> tuple[CfgNode, nn.Module]:
    """Configuration and model of a run, on the CPU and ready to predict.

    Args:
        run: a folder with config.yaml and model_final.pth, or a configuration with weights.
        opts: KEY VALUE pairs; their ``MODEL.WEIGHTS`` go before model_final.pth.
    """
    cfg = load_config(run / "config.yaml" if run.is_dir() else run, ["MODEL.DEVICE", "cpu", *opts])
    apply_custom_dataset(cfg)
    model = Trainer.build_model(cfg).eval()
    own = run.is_dir() and "MODEL.WEIGHTS" not in opts
    weights = str(run / "model_final.pth") if own else cfg.MODEL.WEIGHTS
    Trainer.build_checkpointer(cfg, model).load(weights, complete=True)
    return cfg, model


def results(run: Path) -> dict[str, float]:
    """The last evaluation, ``group/metric`` -> value."""
    return json.loads((run / "metrics.json").read_text().splitlines()[-1])


def seconds_by_image(run: Path) -> float | None:
    """Of the last evaluation: network and evaluator, as the log has it."""
    found = SECONDS.findall((run / "log.txt").read_text())
    return float(found[-1]) if found else None


def memory(run: Path) -> float | None:
    """GiB that the training process had at most; None where another tool trained."""
    path = run / "memory.json"
    return json.loads(path.read_text())["max_rss_kib"] / 2**20 if path.is_file() else None


def record(run: Path) -> dict:
    """What ``run.json`` says: parameters, iterations, batch, seconds."""
    return json.loads((run / "run.json").read_text())


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is its head."""
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def or_dash(value: float | None, form: str) -> str:
    """A figure, or "-" where it is not known."""
    return "-" if value is None else form.format(value)
