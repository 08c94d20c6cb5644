"""``seg-plugins report``: report.html of one run, or of several side by side."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..engine.explaining import explain_run
from ..evaluation.bootstrap import compare_runs
from ..io.errors import SegPluginsError
from ..io.files import write_atomically
from ..visualization.report import Table, build_page, by_seed, read_run, seed_tables

EXPECTED = (FileNotFoundError, SegPluginsError)


def run(args: argparse.Namespace) -> None:
    """Write the page, and print the figures and differences with their intervals.

    Raises:
        FileNotFoundError: a folder is that of no run.
        SegPluginsError: a run cannot be explained.
    """
    if args.explain:
        for folder in args.runs:
            for file in explain_run(Path(folder), args.slice):
                print(file)
    runs = [read_run(folder) for folder in args.runs]
    groups = by_seed(runs)
    found = compare_runs(
        {name: [run.folder for run in group] for name, group in groups.items()},
        samples=args.resamples,
        seed=args.seed,
    )
    tables = [*seed_tables(groups), *(Table(*table) for table in found.tables())]
    one = Path(args.runs[0]) / "report.html"
    path = Path(args.output or (one if len(runs) == 1 else "comparison.html"))
    alone = {name: group[0].folder for name, group in groups.items() if len(group) == 1}
    intervals = {
        (alone[figure.run], figure.dataset, figure.metric): (figure.low, figure.high)
        for figure in found.figures
        if figure.run in alone
    }
    page = build_page(runs, errors=found.problems, statistics=tables, intervals=intervals)
    for line in (*found.figures, *found.differences):
        print(line)
    for file in found.without:
        print(f"{file}: no interval; nothing is kept of its images (see docs/evaluation.md)")
    for problem in found.problems:
        print(f"warning: {problem}", file=sys.stderr)
    write_atomically(path, lambda file: file.write(page))
    print(f"{path}: {len(page) / 2**20:.2f} MiB")
