"""What a finished run leaves for its reader: ``run.json``, pictures, ``report.html``."""

from __future__ import annotations

import dataclasses
import json
import logging
import platform
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2
import detectron2
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import nn

from ..config import ConfigError
from ..data import Dataset
from ..evaluation.bootstrap import Comparison, compare_runs
from ..io.command_line import command_line
from ..io.files import write_atomically
from ..modeling.analysis import analyze, size_at_test
from ..modeling.test_time.augmentation import with_test_time_augmentation
from ..visualization.examples import image_scores, write_examples
from ..visualization.report import Table, build_page, read_run
from ..visualization.samples import draw_row, prediction_of_records
from ..visualization.sheet import class_legend, sheet
from .provenance import code_version, repeating, typed

logger = logging.getLogger(__name__)


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
        "parameters": _parameters(model),
        **done,
        "batch": cfg.SOLVER.IMS_PER_BATCH,
        "seed": cfg.SEED,
        "hardware": hardware(),
        "command": shlex.join(typed(sys.argv)),
        "repeat": repeating(sys.argv, cfg.SEED),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **code_version(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "detectron2": detectron2.__version__,
        },
    }
    _write_json(record, Path(cfg.OUTPUT_DIR) / "run.json")


def write_pictures(cfg: CfgNode, model: nn.Module) -> Path | None:
    """Write a grid of ``TEST.PICTURES`` test samples: image, ground truth, prediction.

    Returns:
        The file, or None where there is nothing to draw.
    """
    if not cfg.TEST.PICTURES or not cfg.DATASETS.TEST or not comm.is_main_process():
        return None
    name = cfg.DATASETS.TEST[0]
    dataset = Dataset.get(name)
    records = dataset.records
    places = np.linspace(0, len(records) - 1, min(cfg.TEST.PICTURES, len(records))).astype(int)
    with prediction_of_records(cfg, with_test_time_augmentation(cfg, model)) as predict:
        chosen = [records[int(index)] for index in places]
        rows = [draw_row(r, predict(r), dataset, cfg.INPUT.FORMAT) for r in chosen]
    path = Path(cfg.OUTPUT_DIR) / "inference" / "pictures.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    scores = image_scores(path.parent, name)
    file_names = [str(record["file_name"]) for record in chosen]
    captions = [" ".join([Path(f).name, *scores.get(f, ())]) for f in file_names]
    drawn = sheet(rows, captions, class_legend(dataset, rows))
    encoded = cv2.imencode(".png", drawn[:, :, ::-1])[1].tobytes()
    write_atomically(path, lambda file: file.write(encoded))
    logger.info("Pictures (image | ground truth | prediction): %s", path)
    return path


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
        _attempt(
            "pictures",
            problems,
            lambda: write_examples(cfg, with_test_time_augmentation(cfg, model), where, count),
        )
    path = folder / "report.html"
    found = _attempt("intervals", problems, lambda: _compared(cfg, problems)) or Comparison()

    def write() -> Path:
        page = build_page(
            [read_run(folder)],
            errors=problems,
            statistics=[Table(*table) for table in found.tables()],
            intervals={(folder, f.dataset, f.metric): (f.low, f.high) for f in found.figures},
        )
        write_atomically(path, lambda file: file.write(page))
        return path

    written = _attempt("page", problems, write)
    if written:
        logger.info("Report: %s", path)
    return written


def tell_end(cfg: CfgNode, figures: Mapping[str, tuple[float, int]], names: Sequence[str]) -> None:
    """Log the score, the weights to use, and the command that uses them.

    Args:
        cfg: the run's configuration.
        figures: metric -> value and iteration, the last of each.
        names: of metrics; the first that was measured is told.
    """
    folder = Path(cfg.OUTPUT_DIR)
    score = next((f"{name} {figures[name][0]:.2f}" for name in names if name in figures), "")
    if score:
        logger.info("Result: %s on %s", score, ", ".join(cfg.DATASETS.TEST))
    best = next(
        (
            folder / name
            for name in ("model_best.pth", "model_final.pth")
            if (folder / name).exists()
        ),
        None,
    )
    if best:
        model = ("--config-file", folder / "config.yaml", "--weights", best)
        command = command_line("predict", *model, "--input", "IMAGES", "--output", "results")
        logger.info("Next, on images of your own: %s", command)


def _attempt(part: str, problems: list[str], make: Callable[[], Any]) -> Any:
    """What `make` returns; None, a logged error and a line in `problems` if it fails."""
    try:
        return make()
    except Exception as error:  # describing a finished run must not turn it into a failed one
        logger.exception("The report's %s could not be made", part)
        problems.append(f"The {part} could not be made: {type(error).__name__}: {error}")
        return None


def _compared(cfg: CfgNode, problems: list[str]) -> Comparison:
    folder = Path(cfg.OUTPUT_DIR)
    found = compare_runs({folder.resolve().name: [folder]}, samples=cfg.TEST.BOOTSTRAP)
    problems += found.problems
    return found


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
