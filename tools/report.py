#!/usr/bin/env python
"""Write report.html from the files of one run folder, or of several side by side.

tools/report.py output/run                              # output/run/report.html anew
tools/report.py output/run --explain                    # and what is behind the scores
tools/report.py output/run_a output/run_b --output comparison.html
tools/report.py output/run/seed_1 output/run/seed_2     # mean and range over the seeds

Figures come with 95% intervals from resamples of the test images, and runs are compared on the
same resamples: "a better than b in 97.1% of 2,000 resamples".
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import seg_plugins  # noqa: F401 - first: it makes Detectron2 run and registers everything
from seg_plugins import SegPluginsError
from seg_plugins.engine.explaining import explain_run
from seg_plugins.evaluation.bootstrap import compare_runs
from seg_plugins.io.files import write_atomically
from seg_plugins.plugins import add_import_argument
from seg_plugins.visualization.report import Table, build_page, by_seed, read_run, seed_tables


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="folders that tools/train_net.py made"
    )
    parser.add_argument(
        "--output", help="file; default: report.html in the one folder, or comparison.html here"
    )
    parser.add_argument(
        "--resamples", type=int, default=2000, metavar="N", help="default 2000; 0: no intervals"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the resamples; default 0")
    parser.add_argument(
        "--explain",
        action="store_true",
        help="first explain the predictions that the runs saved (TEST.SAVE_PREDICTIONS True): "
        "<task>_explanations.json beside the results; reports made later show them too",
    )
    parser.add_argument(
        "--slice",
        default="",
        metavar="KEY",
        help="with --explain: scores for each value of this key of the dataset's records, too",
    )
    add_import_argument(parser)
    arguments = parser.parse_args()
    if arguments.resamples < 0 or arguments.seed < 0:
        parser.error("--resamples and --seed must not be negative")
    if arguments.slice and not arguments.explain:
        parser.error("--slice KEY belongs to --explain: give both")
    try:
        if arguments.explain:
            for folder in arguments.runs:
                for file in explain_run(Path(folder), arguments.slice):
                    print(file)
        runs = [read_run(folder) for folder in arguments.runs]
    except (FileNotFoundError, SegPluginsError) as error:
        sys.exit(f"error: {error}")
    groups = by_seed(runs)
    found = compare_runs(
        {name: [run.folder for run in group] for name, group in groups.items()},
        samples=arguments.resamples,
        seed=arguments.seed,
    )
    tables = [*seed_tables(groups), *(Table(*table) for table in found.tables())]
    one = Path(arguments.runs[0]) / "report.html"
    path = Path(arguments.output or (one if len(runs) == 1 else "comparison.html"))
    page = build_page(runs, errors=found.problems, statistics=tables)
    for line in (*found.figures, *found.differences):
        print(line)
    for file in found.without:
        print(f"{file}: no interval; nothing is kept of its images (see docs/evaluation.md)")
    for problem in found.problems:
        print(f"warning: {problem}", file=sys.stderr)
    write_atomically(path, lambda file: file.write(page))
    print(f"{path}: {len(page) / 2**20:.2f} MiB")


if __name__ == "__main__":
    main()
