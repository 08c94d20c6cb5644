"""Rows and columns out of result files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .plots import finite, heat_map
from .run import Run

# Above so many classes a confusion matrix is a picture.
_MOST_CELLS = 30


@dataclass(frozen=True)
class Table:
    """Cells are text or numbers; None is shown as a dash.

    Attributes:
        title: above it.
        columns: heads.
        rows: cells, the first of which is the row's name.
        digits: after the decimal point of a number that is not whole.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    digits: int = 2

    def is_numeric(self, column: int) -> bool:
        """Whether a column has numbers and dashes alone, so that it stands to the right."""
        return all(row[column] is None or isinstance(row[column], int | float) for row in self.rows)


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix.

    Attributes:
        classes: names by row.
        cells: for each true class the (share of its pixels in 0..1, pixels) by predicted class.
        picture: data URI instead of cells, where there are many classes.
    """

    classes: Sequence[str]
    cells: Sequence[Sequence[tuple[float, int]]] = field(default_factory=list)
    picture: str = ""


def scores(runs: Sequence[Run], key: tuple[str, str]) -> tuple[list[Table], list[Table]]:
    """Summary and per-class tables of a task, with a column for each run.

    Args:
        runs: those whose results are compared.
        key: (folder, task) of :attr:`.run.Run.results`.
    """
    summaries, classes = [], []
    results = [run.results.get(key, {}).get("results", {}) for run in runs]
    for group in dict.fromkeys(name for result in results for name in result):
        metrics = [_split(result.get(group) or {}) for result in results]
        names = list(dict.fromkeys(name for whole, _ in metrics for name in whole))
        heads = [run.name for run in runs] if len(runs) > 1 else ["value"]
        rows = [[name, *(whole.get(name) for whole, _ in metrics)] for name in names]
        summaries.append(Table(group, ["metric", *heads], rows))
        table = _per_class(group, [by_class for _, by_class in metrics], runs)
        if table.rows:
            classes.append(table)
    return summaries, classes


def _split(metrics: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Figures of the whole set, and class -> metric -> value out of ``metric-class``."""
    whole: dict[str, Any] = {}
    by_class: dict[str, dict[str, Any]] = {}
    for name, value in metrics.items():
        metric, dash, label = name.partition("-")
        if dash:
            by_class.setdefault(label, {})[metric] = value
        else:
            whole[name] = value
    return whole, by_class


def _per_class(
    title: str, found: Sequence[Mapping[str, Mapping[str, Any]]], runs: Sequence[Run]
) -> Table:
    labels = dict.fromkeys(label for by_class in found for label in by_class)
    metrics = dict.fromkeys(m for by_class in found for row in by_class.values() for m in row)
    several = len(runs) > 1
    columns = [f"{m}, {run.name}" if several else m for m in metrics for run in runs]
    rows = [
        [label, *(by_class.get(label, {}).get(m) for m in metrics for by_class in found)]
        for label in labels
    ]
    return Table(f"{title} by class", ["class", *columns], rows)


def by_size(result: Mapping[str, Any]) -> list[Table]:
    """AP by class and size of object, for each kind (``bbox``, ``segm``)."""
    tables = []
    for kind, rows in (result.get("by_class_and_size") or {}).items():
        if not isinstance(rows, Mapping) or not rows:
            continue
        columns = list(dict.fromkeys(c for row in rows.values() for c in row))
        body = [[name, *(row.get(c) for c in columns)] for name, row in rows.items()]
        tables.append(Table(f"AP of {kind} by class and size", ["class", *columns], body))
    return tables


def counts(result: Mapping[str, Any]) -> Table | None:
    """True and false positives and misses of panoptic segments, by class."""
    found = result.get("counts") or {}
    if not found:
        return None
    columns = list(dict.fromkeys(c for row in found.values() for c in row))
    rows = [[name, *(row.get(c) for c in columns)] for name, row in found.items()]
    return Table("segments by class", ["class", *columns], rows)


def confusion(result: Mapping[str, Any]) -> Confusion | None:
    """The confusion matrix of a semantic result, pixels of no class left out."""
    names = result.get("classes")
    if not names or not result.get("confusion"):
        return None
    return confusion_of(names, np.asarray(result["confusion"])[: len(names), : len(names)])


def confusion_of(names: Sequence[str], counts: Any) -> Confusion:
    """A confusion matrix from (K, K) counts, true class by predicted one."""
    matrix = np.asarray(counts, np.float64)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    if len(names) > _MOST_CELLS:
        return Confusion(names, picture=heat_map(shares))
    cells = [
        [(float(share), int(count)) for share, count in zip(*row, strict=True)]
        for row in zip(shares, matrix, strict=True)
    ]
    return Confusion(names, cells)


def system(run: Run) -> Table | None:
    """Parameters, multiply-adds and activation memory by part.

    Of RoI heads also for how many regions: as many as an image can have at test.
    """
    rows = run.system.get("rows") or []
    if not rows:
        return None
    columns: dict[str, tuple[str, float]] = {
        "parameters (M)": ("parameters", 1e6),
        "multiply-adds (G)": ("multiply_adds", 1e9),
        "activations (MiB)": ("activation_bytes", 2**20),
    }
    body = [
        [
            row["name"],
            *(row[key] / unit if finite(row.get(key)) else None for key, unit in columns.values()),
        ]
        for row in rows
    ]
    heads = ["part", *columns]
    if any(row.get("regions") for row in rows):
        heads.append("regions, at most")
        body = [[*cells, row.get("regions")] for cells, row in zip(body, rows, strict=True)]
    size = run.system.get("size")
    title = f"for one image of {size[0]} x {size[1]}" if size else ""
    return Table(title, heads, body, digits=3)  # a small head beside a large backbone


def differing_settings(runs: Sequence[Run]) -> Table:
    """Configuration keys whose values are not the same in all runs."""
    settings = [run.settings for run in runs]
    keys = sorted({key for setting in settings for key in setting})
    rows = [
        [key, *values]
        for key in keys
        if len({*(values := [setting.get(key) for setting in settings])}) > 1
    ]
    return Table("Differing settings", ["key", *(run.name for run in runs)], rows)
