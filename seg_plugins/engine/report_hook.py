"""``report.html`` at the end of a training or an evaluation."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import nn

from ..config import ConfigError
from ..io.files import write_atomically
from ..modeling.analysis import analyze, size_at_test
from ..visualization.report import build_page, read_run
from .examples import write_examples
from .run_record import write_record

logger = logging.getLogger(__name__)


class Report(HookBase):
    """Writes the report when training ends; it stands after all hooks that write files."""

    def __init__(self, cfg: CfgNode) -> None:
        self.cfg = cfg

    def after_train(self) -> None:
        """Write it once, unless training was interrupted."""
        trainer = self.trainer
        if not trainer.complete:
            return
        model = trainer.checkpointer.model
        average = trainer.average
        with average.applied(model) if average is not None else contextlib.nullcontext():
            write_report(self.cfg, model)


def write_report(cfg: CfgNode, model: nn.Module) -> Path | None:
    """Write ``OUTPUT_DIR/report.html`` from the run's files; of its parts, what can be made.

    A part that fails is logged as an error with its traceback and named in the report. The run's
    results are on the disk by then, and stay.

    Args:
        cfg: the run's configuration.
        model: as evaluated.

    Returns:
        The file, or None where ``TEST.REPORT`` is off, in other processes than the main one, or
        when the page itself failed.
    """
    if not cfg.TEST.REPORT or not comm.is_main_process():
        return None
    folder = Path(cfg.OUTPUT_DIR)
    problems: list[str] = []
    if not (folder / "run.json").is_file():  # an evaluation without a training
        _attempt("run record", problems, lambda: write_record(cfg, model))
    _attempt("system table", problems, lambda: _write_system(cfg, model, folder / "system.json"))
    if cfg.TEST.REPORT_IMAGES:
        where, count = folder / "inference" / "examples", cfg.TEST.REPORT_IMAGES
        _attempt("pictures", problems, lambda: write_examples(cfg, model, where, count))
    path = folder / "report.html"

    def write() -> Path:
        page = build_page([read_run(folder)], errors=problems)
        write_atomically(path, lambda file: file.write(page))
        return path

    written = _attempt("page", problems, write)
    if written:
        logger.info("Report: %s", path)
    return written


def _attempt(part: str, problems: list[str], make: Callable[[], Any]) -> Any:
    """What `make` returns; None, a logged error and a line in `problems` if it fails."""
    try:
        return make()
    except Exception as error:  # describing a finished run must not turn it into a failed one
        logger.exception("The report's %s could not be made", part)
        problems.append(f"The {part} could not be made: {type(error).__name__}: {error}")
        return None


def _write_system(cfg: CfgNode, model: nn.Module, path: Path) -> None:
    parts = [(name, _parameters(part)) for name, part in model.named_children()]
    named = [*((name, count) for name, count in parts if count), ("total", _parameters(model))]
    # They remain where counting fails, whatever the reason.
    _write_json({"rows": [{"name": name, "parameters": count} for name, count in named]}, path)
    size = size_at_test(cfg)
    try:
        rows = [dataclasses.asdict(row) for row in analyze(cfg, *size)]
    except ConfigError as error:  # a system from elsewhere
        logger.info("%s", error)
    else:
        _write_json({"size": size, "rows": rows}, path)


def _write_json(content: dict[str, Any], path: Path) -> None:
    text = json.dumps(content, indent=1).encode() + b"\n"
    write_atomically(path, lambda file: file.write(text))


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
