#!/usr/bin/env python
"""Write report.html from the files of one run folder, or of several side by side.

tools/report.py output/run                              # output/run/report.html anew
tools/report.py output/run_a output/run_b --output comparison.html
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import seg_plugins  # noqa: F401 - first: it makes Detectron2 run and registers everything
from seg_plugins.io.files import write_atomically
from seg_plugins.visualization.report import build_page, read_run


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
    arguments = parser.parse_args()
    try:
        runs = [read_run(folder) for folder in arguments.runs]
    except FileNotFoundError as error:
        sys.exit(f"error: {error}")
    one = Path(arguments.runs[0]) / "report.html"
    path = Path(arguments.output or (one if len(runs) == 1 else "comparison.html"))
    page = build_page(runs)
    write_atomically(path, lambda file: file.write(page))
    print(f"{path}: {len(page) / 2**20:.2f} MiB")


if __name__ == "__main__":
    main()
