"""Runs that differ in their seed alone: mean and range of their figures."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .plots import finite
from .run import Run
from .tables import Table

_SEED_FOLDER = re.compile(r"seed_?\d+")
# What tells apart runs of one configuration.
_OWN = {"SEED", "OUTPUT_DIR"}


def by_seed(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Name -> its runs, which are several where folders are seeds of one run.

    They are where they are called ``seed_1``, ``seed_2``, ... and lie in one folder, or where
    their ``config.yaml`` differ in ``SEED`` and ``OUTPUT_DIR`` alone, of the same code. One
    seed twice is a comparison.
    """
    groups: dict[object, list[Run]] = {}
    for run in runs:
        folder = run.folder.resolve()
        settings = {key: value for key, value in run.settings.items() if key not in _OWN}
        key: object = folder
        if _SEED_FOLDER.fullmatch(folder.name):
            key = folder.parent
        elif settings and "SEED" in run.settings:
            code = (run.record.get("version"), run.record.get("commit"))
            key = (*sorted(settings.items()), code)
            if any(run.settings["SEED"] == one.settings["SEED"] for one in groups.get(key, ())):
                key = folder
        groups.setdefault(key, []).append(run)
    named: dict[str, list[Run]] = {}
    for group in groups.values():
        name = _name(group)
        named[str(group[0].folder) if name in named else name] = group
    return named


def seed_tables(groups: dict[str, list[Run]]) -> list[Table]:
    """Mean, lowest and highest of each figure of the whole set, a table for each group of seeds."""
    tables = []
    for name, runs in groups.items():
        rows = []
        for metric in dict.fromkeys(metric for run in runs for metric in _figures(run)):
            figures = [_figures(run).get(metric, float("nan")) for run in runs]
            values = [value for value in figures if finite(value)]
            if len(runs) > 1 and values:
                mean = sum(values) / len(values)
                rows.append([metric, mean, min(values), max(values), len(values)])
        if rows:
            tables.append(Table(name, ["metric", "mean", "lowest", "highest", "seeds"], rows))
    return tables


def _name(group: Sequence[Run]) -> str:
    folder = group[0].folder.resolve()
    is_seed = _SEED_FOLDER.fullmatch(folder.name)
    if len(group) == 1:
        return f"{folder.parent.name}/{folder.name}" if is_seed else folder.name
    return f"{folder.parent.name if is_seed else folder.name} ({len(group)} seeds)"


def _figures(run: Run) -> dict[str, float]:
    """``group/name`` of each figure of the whole set, after its folder where there are several."""
    return {
        "/".join(part for part in (folder, group, name) if part): value
        for (folder, _), result in run.results.items()
        for group, figures in (result.get("results") or {}).items()
        for name, value in figures.items()
        if "-" not in name
    }
