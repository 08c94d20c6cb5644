"""Intervals of figures, and differences of runs on the same resamples of the images."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...tasks import SAVED_DETECTIONS
from ..errors import EvaluationError
from .resampling import centred_interval, resamples
from .statistics import ImageStatistics, read_statistics


@dataclass(frozen=True)
class Figure:
    """A figure with its 95% interval, in percent.

    Attributes:
        run: its name; several seeds of a run are one, with their mean.
        metric: ``group/name``.
        dataset: that it was measured on.
        images: of the dataset.
        value: as evaluated.
        low: end of the interval.
        high: end of the interval.
        samples: resamples in which the figure is defined.
    """

    run: str
    metric: str
    dataset: str
    images: int
    value: float
    low: float
    high: float
    samples: int

    def __str__(self) -> str:
        return (
            f"{self.metric} on {self.dataset}: {self.run} {self.value:.2f} "
            f"[{self.low:.2f}, {self.high:.2f}]"
        )


@dataclass(frozen=True)
class Difference:
    """By how much the better of two runs is ahead, on the same images.

    Attributes:
        better: the run with the higher figure.
        worse: the other.
        metric: ``group/name``.
        dataset: that both were measured on.
        images: of the dataset.
        value: ``better - worse`` as evaluated, percent.
        low: end of the 95% interval of the difference.
        high: end of it.
        share: of the resamples in which the better one is ahead, 0..1.
        samples: resamples in which both figures are defined.
    """

    better: str
    worse: str
    metric: str
    dataset: str
    images: int
    value: float
    low: float
    high: float
    share: float
    samples: int

    def __str__(self) -> str:
        return (
            f"{self.metric} on {self.dataset}: {self.better} better than {self.worse} in "
            f"{100 * self.share:.1f}% of {self.samples:,} resamples of {self.images:,} images, "
            f"by {self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"
        )


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare_runs` found.

    Attributes:
        figures: of every run.
        differences: of every pair of runs.
        problems: why runs could not be compared, or a file not be read.
        without: results files that have no statistics beside them.
    """

    figures: list[Figure] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    without: list[Path] = field(default_factory=list)

    def tables(self) -> list[tuple[str, list[str], list[list[Any]]]]:
        """Title, heads and rows of one table of figures and one of differences, as far as any."""
        found: list[tuple[str, list[str], list[list[Any]]]] = []
        if self.figures:
            heads = ["metric", "dataset", "run", "value", "low", "high", "images"]
            rows = [
                [f.metric, f.dataset, f.run, f.value, f.low, f.high, f.images] for f in self.figures
            ]
            found.append(("95% intervals", heads, rows))
        if self.differences:
            heads = ["metric", "dataset", "better", "worse", "ahead by", "low", "high"]
            heads += ["ahead in % of", "resamples"]
            rows = []
            for d in self.differences:
                row = [d.metric, d.dataset, d.better, d.worse, d.value, d.low, d.high]
                rows.append([*row, 100 * d.share, d.samples])
            found.append(("Differences on the same resamples", heads, rows))
        return found


def compare(
    runs: Mapping[str, Sequence[ImageStatistics]], samples: int, seed: int
) -> tuple[list[Figure], list[Difference]]:
    """Intervals of runs on one dataset and of their differences.

    Args:
        runs: name -> statistics of its seeds, of one where there is one. The figure of several
            is their mean.
        samples: how many resamples.
        seed: of the resamples.

    Raises:
        EvaluationError: the statistics are of different images, classes or truth.
    """
    every = [(name, statistics) for name, seeds in runs.items() for statistics in seeds]
    _check_same_dataset(every)
    first = every[0][1]
    images = len(first.images)
    whole = _figures(runs, np.ones((images, 1)))
    rows = max(statistics.rows for _, statistics in every)
    chunks = [_figures(runs, weights) for weights in resamples(images, samples, seed, rows)]
    drawn = {key: np.concatenate([chunk[key] for chunk in chunks]) for key in chunks[0]}
    figures = []
    for (name, metric), (value,) in whole.items():
        defined = drawn[name, metric][np.isfinite(drawn[name, metric])]
        if np.isfinite(value):
            interval = centred_interval(float(value), defined)
            figures.append(
                Figure(name, metric, first.dataset, images, float(value), *interval, len(defined))
            )
    differences = []
    for one, other in itertools.combinations(runs, 2):
        for metric in (m for name, m in whole if name == one and (other, m) in whole):
            ahead = float(whole[one, metric][0] - whole[other, metric][0])
            better, worse = (one, other) if ahead >= 0 else (other, one)
            gains = drawn[better, metric] - drawn[worse, metric]
            gains = gains[np.isfinite(gains)]
            if np.isfinite(ahead) and len(gains):
                interval = centred_interval(abs(ahead), gains)
                share = float(np.mean(gains > 0))
                found = (metric, first.dataset, images, abs(ahead), *interval, share, len(gains))
                differences.append(Difference(better, worse, *found))
    return figures, differences


def compare_runs(
    runs: Mapping[str, Sequence[Path]], *, samples: int = 2000, seed: int = 0
) -> Comparison:
    """Compare run folders, in every task and dataset that they have results of.

    Args:
        runs: name -> folders of its seeds, with ``inference/**/<task>_results.json``.
        samples: how many resamples; 0 compares nothing.
        seed: of the resamples.

    Returns:
        With runs on different datasets, intervals of each and a problem that names both.
    """
    comparison = Comparison()
    tasks: dict[str, dict[str, list[ImageStatistics]]] = {}
    for name, folders in runs.items() if samples else ():
        for folder in folders:
            for file in sorted(Path(folder, "inference").rglob("*_results.json")):
                if file.name in SAVED_DETECTIONS:
                    continue
                try:
                    statistics = read_statistics(file)
                except EvaluationError as error:
                    comparison.problems.append(str(error))
                    continue
                if statistics is None:
                    comparison.without.append(file)
                    continue
                task = file.relative_to(Path(folder, "inference")).as_posix()
                tasks.setdefault(task, {}).setdefault(name, []).append(statistics)
    for task, found in tasks.items():
        for name, seeds in found.items():
            if len(seeds) < len(runs[name]):
                comparison.problems.append(
                    f"{name}: {task} has statistics in {len(seeds)} of {len(runs[name])} runs, "
                    "and the figure is theirs alone: evaluate the others again"
                )
        try:
            results = [compare(found, samples, seed)]
        except EvaluationError as error:
            comparison.problems.append(str(error))
            alone = (
                {f"{name} ({s.source.parent})" if len(seeds) > 1 else name: [s]}
                for name, seeds in found.items()
                for s in seeds
            )
            results = [compare(one, samples, seed) for one in alone]
        for figures, differences in results:
            comparison.figures.extend(figures)
            comparison.differences.extend(differences)
    return comparison


def _figures(
    runs: Mapping[str, Sequence[ImageStatistics]], weights: np.ndarray
) -> dict[tuple[str, str], np.ndarray]:
    """(run, metric) -> (B,) the mean of the run's seeds."""
    found = {}
    for name, seeds in runs.items():
        figures = [statistics.figures(weights) for statistics in seeds]
        for metric in figures[0]:
            if all(metric in figure for figure in figures):
                found[name, metric] = np.mean([figure[metric] for figure in figures], axis=0)
    return found


def _check_same_dataset(every: Sequence[tuple[str, ImageStatistics]]) -> None:
    (name, first), *others = every
    for other, statistics in others:
        if statistics.fingerprint != first.fingerprint:
            raise EvaluationError(
                f"{name} and {other} cannot be compared: {first.source} is of '{first.dataset}' "
                f"({len(first.images):,} images), {statistics.source} of '{statistics.dataset}' "
                f"({len(statistics.images):,} images), and their images, classes or truth differ. "
                "Evaluate both on one dataset."
            )
