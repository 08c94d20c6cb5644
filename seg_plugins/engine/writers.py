"""Where metrics go, and how much of them is kept in memory."""

from __future__ import annotations

import json
import math
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils.events import (
    CommonMetricPrinter,
    EventStorage,
    EventWriter,
    TensorboardXWriter,
    get_event_storage,
)
from fvcore.common.history_buffer import HistoryBuffer

from ..config import ConfigError
from ..io.files import write_atomically

# Enough for every window of the writers; Detectron2 keeps a million values of each metric.
HISTORY = 1000


def bound_history(storage: EventStorage) -> None:
    """Let an event storage, new and empty, keep the last 1,000 values of each metric."""
    storage._history = defaultdict(lambda: HistoryBuffer(HISTORY))


class JsonWriter(EventWriter):
    """``metrics.json``: a line of JSON for each iteration that has metrics.

    What is no number (the IoU of a class that is nowhere) is null, which JSON has and NaN it has
    not.

    Args:
        file: lines are added to it.
        window: values whose median is written, as the other writers do.
    """

    def __init__(self, file: Path, window: int = 20) -> None:
        self._file = file.open("a", encoding="utf-8")
        self._window = window
        self._last = -1

    def write(self) -> None:
        """Write metrics that are new since the last call, and see them to the disk."""
        lines: dict[int, dict[str, float | int | None]] = {}
        values = get_event_storage().latest_with_smoothing_hint(self._window)
        for name, (value, iteration) in values.items():
            if iteration > self._last:
                number = float(value) if math.isfinite(value) else None
                lines.setdefault(iteration, {"iteration": iteration})[name] = number
        for iteration in sorted(lines):
            self._file.write(json.dumps(lines[iteration], sort_keys=True, allow_nan=False) + "\n")
        self._last = max(lines, default=self._last)
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class WandbWriter(EventWriter):
    """Writes metrics to Weights & Biases.

    Args:
        cfg: ``WANDB`` names project and run; the whole of it is stored as the run's config.
        window: values whose median is written, as the other writers do.

    Raises:
        ConfigError: the package ``wandb`` is not installed.
    """

    def __init__(self, cfg: CfgNode, window: int = 20) -> None:
        try:
            import wandb
        except ModuleNotFoundError:
            raise ConfigError(
                "WANDB.PROJECT is set, but the package wandb is not installed: pip install wandb"
            ) from None
        folder = Path(cfg.OUTPUT_DIR)
        self._window = window
        self._last = -1
        self._run = wandb.init(
            project=cfg.WANDB.PROJECT,
            name=cfg.WANDB.NAME or folder.name,
            dir=str(folder),
            config=json.loads(json.dumps(cfg)),
            id=cfg.WANDB.ID or None,
            resume="allow",
        )

    def write(self) -> None:
        """Send metrics that are new since the last call."""
        by_iteration: dict[int, dict[str, float]] = defaultdict(dict)
        values = get_event_storage().latest_with_smoothing_hint(self._window)
        for name, (value, iteration) in values.items():
            if iteration > self._last:
                by_iteration[iteration][name] = float(value)
        for iteration in sorted(by_iteration):
            self._run.log(by_iteration[iteration], step=iteration)
        self._last = max(by_iteration, default=self._last)

    def close(self) -> None:
        """End the run."""
        self._run.finish()


def build_writers(cfg: CfgNode, start_iter: int, max_iter: int) -> list[Any]:
    """Log, ``metrics.json`` and TensorBoard, and W&B if it is named.

    Lines of ``metrics.json`` from ``start_iter`` on, which a killed run has left, are dropped:
    these iterations are made again.
    """
    folder = Path(cfg.OUTPUT_DIR)
    folder.mkdir(parents=True, exist_ok=True)
    _drop_lines(folder / "metrics.json", start_iter)
    writers: list[EventWriter] = [
        CommonMetricPrinter(max_iter),
        JsonWriter(folder / "metrics.json"),
        TensorboardXWriter(cfg.OUTPUT_DIR),
    ]
    if cfg.WANDB.PROJECT:
        writers.append(WandbWriter(cfg))
    return writers


def _drop_lines(file: Path, start_iter: int) -> None:
    if not file.is_file():
        return
    lines = file.read_text().splitlines(keepends=True)
    kept = [line for line in lines if _iteration(line) < start_iter]
    if len(kept) < len(lines):
        write_atomically(file, lambda target: target.write("".join(kept).encode()))


def _iteration(line: str) -> float:
    """The iteration of a line; infinite for one that was cut off."""
    try:
        return float(json.loads(line)["iteration"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
