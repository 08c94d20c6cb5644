"""Results as plain JSON and as one table for people."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def plain_json(value: Any) -> Any:
    """`value` with NumPy types made Python's and NaN or infinity made None.

    Python's JSON writer would print ``NaN``, which no other JSON reader accepts.
    """
    if isinstance(value, Mapping):
        return {str(key): plain_json(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain_json(value.tolist())
    if isinstance(value, list | tuple):
        return [plain_json(item) for item in value]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value


def readable_json(value: Any, indent: str = "") -> str:
    """`value` as JSON text: a line for each entry of an object, but a list on one line.

    A confusion matrix or a curve takes a line, not one for each of its numbers.
    """
    if not isinstance(value, Mapping) or not value:
        return json.dumps(plain_json(value))
    deeper = f"{indent} "
    entries = (
        f"{deeper}{json.dumps(str(key))}: {readable_json(item, deeper)}"
        for key, item in value.items()
    )
    return "{\n" + ",\n".join(entries) + f"\n{indent}}}"


def write_results(results: Mapping[str, Any], folder: Path, dataset: str) -> None:
    """Write ``<group>_results.json`` of each group for which the evaluator has written no file.

    The report then shows the figures of every evaluator, Detectron2's and a user's own too.

    Args:
        results: ``{group: {metric: value}}``.
        folder: where the evaluator's files are.
        dataset: its name.
    """
    known: set[str] = set()
    for file in folder.glob("*_results.json"):
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:  # of an interrupted run; the evaluators have written theirs anew
            continue
        if "images" in content:  # as StreamingEvaluator counts them
            known |= content["results"].keys()
    for group, figures in results.items():
        if group in known or not isinstance(figures, Mapping):
            continue
        folder.mkdir(parents=True, exist_ok=True)
        content = {"dataset": dataset, "results": {group: figures}}
        text = readable_json(content) + "\n"
        (folder / f"{group}_results.json").write_text(text, encoding="utf-8")


def format_results(results: Mapping[str, Mapping[str, float]]) -> str:
    """One text table of every task of a run: summary figures first, then one row per class.

    Args:
        results: ``{task: {metric: value}}``, where ``metric-class`` names a class's value.

    Returns:
        Lines without a trailing newline; a value that cannot be computed is shown as ``-``.
    """
    blocks = []
    for task, metrics in results.items():
        summary, classes, columns = _split(metrics)
        lines = _table(["task", *summary], [[task, *map(_show, summary.values())]])
        if classes:
            rows = [
                [name, *(_show(values.get(column)) for column in columns)]
                for name, values in classes.items()
            ]
            lines += ["", *_table(["class", *columns], rows)]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _split(
    metrics: Mapping[str, float],
) -> tuple[dict[str, float], dict[str, dict[str, float]], list[str]]:
    summary: dict[str, float] = {}
    classes: dict[str, dict[str, float]] = {}
    columns: list[str] = []
    for key, value in metrics.items():
        metric, dash, name = key.partition("-")
        if not dash:
            summary[key] = value
            continue
        classes.setdefault(name, {})[metric] = value
        if metric not in columns:
            columns.append(metric)
    return summary, classes, columns


def _show(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.3f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first = cells[0].ljust(widths[0])
        return "  ".join([first, *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))])

    return [line(header), "  ".join("-" * width for width in widths), *map(line, rows)]
