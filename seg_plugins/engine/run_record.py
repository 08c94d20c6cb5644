"""``run.json``: what a training run was, for tables and reports made from its folder later."""

from __future__ import annotations

import json
import platform
import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import detectron2
import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import nn

from ..io.files import write_atomically


def hardware() -> str:
    """The device that this process computes on, e.g. ``NVIDIA H200`` or ``2 threads, AMD EPYC``."""
    if torch.cuda.is_available():
        return f"{comm.get_world_size()} x {torch.cuda.get_device_name()}"
    threads = torch.get_num_threads() * comm.get_world_size()
    return f"{threads} thread{'s' if threads > 1 else ''}, {_cpu_name()}"


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def write_record(cfg: CfgNode, model: nn.Module, **done: Any) -> None:
    """Write ``OUTPUT_DIR/run.json``.

    Args:
        cfg: the run's configuration.
        model: its model.
        **done: what is known of a training, ``iterations`` and ``seconds``.
    """
    record: dict[str, Any] = {
        "system": cfg.MODEL.META_ARCHITECTURE,
        "backbone": cfg.MODEL.BACKBONE.NAME,
        "datasets": {"train": list(cfg.DATASETS.TRAIN), "test": list(cfg.DATASETS.TEST)},
        "parameters": sum(p.numel() for p in model.parameters()),
        **done,
        "batch": cfg.SOLVER.IMS_PER_BATCH,
        "seed": cfg.SEED,
        "hardware": hardware(),
        "command": shlex.join(sys.argv),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "detectron2": detectron2.__version__,
        },
    }
    content = json.dumps(record, indent=1).encode() + b"\n"
    write_atomically(Path(cfg.OUTPUT_DIR) / "run.json", lambda file: file.write(content))


class RunRecord(HookBase):
    """Writes ``OUTPUT_DIR/run.json`` when training ends; training time adds up over resumes."""

    def __init__(self, cfg: CfgNode) -> None:
        self.cfg = cfg
        self.seconds = 0.0
        self._begin = 0.0

    def before_train(self) -> None:
        """Start the clock."""
        self._begin = time.perf_counter()

    def after_train(self) -> None:
        """Write the file."""
        done = {"iterations": self.trainer.iter, "seconds": round(self._elapsed(), 1)}
        write_record(self.cfg, self.trainer.model, **done)

    def _elapsed(self) -> float:
        return self.seconds + time.perf_counter() - self._begin

    def state_dict(self) -> dict[str, float]:
        """Seconds of training so far."""
        return {"seconds": self._elapsed()}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Restore :meth:`state_dict`'s content."""
        self.seconds = state["seconds"]
