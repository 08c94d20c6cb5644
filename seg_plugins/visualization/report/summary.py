"""What a reader wants to know first: the main figures, and what looks wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...tasks import TASKS
from .plots import finite
from .run import Run

# Points of percent by which the last evaluation may stay behind the best one without a word.
_LOSS_OF_SCORE = 2.0
# Names of classes in one alarm.
_MOST_NAMES = 8
# What a class has in percent, by task.
_BY_CLASS = ("IoU", "AP", "PQ")

#: (run's folder, dataset, ``group/name``) -> ends of the figure's 95% interval.
Intervals = Mapping[tuple[Path, str, str], tuple[float, float]]


@dataclass(frozen=True)
class Tile:
    """One figure in large type.

    Attributes:
        label: name of the figure and of what is measured.
        dataset: that it was measured on.
        run: "" where there is one run.
        value: as evaluated last.
        interval: ends of the 95% interval, where it is known.
        best: the best value of the training and its iteration, where another one was last.
    """

    label: str
    dataset: str
    run: str
    value: float
    interval: tuple[float, float] | None = None
    best: tuple[float, int] | None = None


def tiles(runs: Sequence[Run], intervals: Intervals) -> list[Tile]:
    """The main figures of each run's tasks, figure by figure."""
    found = []
    for key in dict.fromkeys(key for run in runs for key in run.results):
        for metric in _main_metrics(key[1]):
            for run in runs:
                result = run.results.get(key, {})
                group, name = metric.split("/")
                value = ((result.get("results") or {}).get(group) or {}).get(name)
                if not finite(value):
                    continue
                dataset = str(result.get("dataset") or key[0])
                best = _best(run, key[0], metric)
                found.append(
                    Tile(
                        label=f"{name}, {group}",
                        dataset=dataset,
                        run=run.name if len(runs) > 1 else "",
                        value=value,
                        interval=intervals.get((run.folder, dataset, metric)),
                        best=best if best and best[0] > value + 0.005 else None,
                    )
                )
    return found


def _main_metrics(task: str) -> tuple[str, ...]:
    return next((known.metrics for known in TASKS if known.output == task), ())


def _best(run: Run, folder: str, metric: str) -> tuple[float, int] | None:
    """The highest value of a figure over the training and its iteration."""
    names = (f"{folder}/{metric}", metric) if folder else (metric,)
    values = [
        (row[name], -row["iteration"])
        for row in run.metrics
        for name in names
        if finite(row.get(name))
    ]
    if not values:
        return None
    value, iteration = max(values)  # the earliest of equal ones
    return value, -iteration


def alarms(runs: Sequence[Run]) -> list[str]:
    """What a reader should not overlook, a sentence each."""
    found = []
    for run in runs:
        name = f"{run.name}: " if len(runs) > 1 else ""
        found += [name + alarm for alarm in (*_of_losses(run), *_of_scores(run))]
    return found


def _of_losses(run: Run) -> Iterator[str]:
    for row in run.metrics:
        # What is no number is null in the file.
        if "total_loss" in row and not finite(row["total_loss"]):
            yield f"the loss is no finite number at iteration {row['iteration']:,}"
            return


def _of_scores(run: Run) -> Iterator[str]:
    for (folder, task), result in run.results.items():
        dataset = str(result.get("dataset") or folder)
        images: Mapping[str, Any] = result.get("images") or {}
        scored, expected = images.get("scored"), images.get("expected")
        if finite(scored) and finite(expected) and scored < expected:
            yield f"{expected - scored:,} of {expected:,} images of {dataset} were not scored"
        for group, figures in (result.get("results") or {}).items():
            for kind in _BY_CLASS:
                start = f"{kind}-"
                zero = [
                    n.removeprefix(start)
                    for n, v in figures.items()
                    if n.startswith(start) and v == 0
                ]
                if zero:
                    more = len(zero) - _MOST_NAMES
                    names = ", ".join(zero[:_MOST_NAMES]) + (
                        f" and {more} more" if more > 0 else ""
                    )
                    yield f"{names}: {kind} 0 ({group}, {dataset})"
        for metric in _main_metrics(task):
            group, name = metric.split("/")
            last = ((result.get("results") or {}).get(group) or {}).get(name)
            best = _best(run, folder, metric)
            if finite(last) and best and best[0] - last > _LOSS_OF_SCORE:
                yield (
                    f"{name} ({group}, {dataset}) ended {best[0] - last:.1f} below its best, "
                    f"{best[0]:.2f} at iteration {best[1]:,}"
                )
