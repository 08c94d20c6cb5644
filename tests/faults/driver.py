"""Break training in every way of the table below, and print what came of it.

    make faults                                              the full numbers, within an hour
    python tests/faults/driver.py --scale 0.1                a tenth of them
    python tests/faults/driver.py --only "data worker"       one row

Exits with status 1 if a row is not as required.
"""

from __future__ import annotations

import argparse
import functools
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT)]


def campaigns():
    """Name, full number of runs, function of (runs, generator, folder)."""
    import files
    import kills
    import nonfinite_runs

    return [
        ("SIGKILL", 100, kills.sigkill),
        ("overwriting", 100, kills.overwriting),
        ("disk full", 20, files.disk_full),
        ("damaged", 300, files.damaged),
        ("NaN", 0, nonfinite_runs.not_finite),
        ("rank static", 50, functools.partial(kills.rank, "static")),
        ("rank c10d", 50, functools.partial(kills.rank, "c10d")),
        ("data worker", 20, kills.worker),
        ("SIGTERM", 20, kills.sigterm),
        ("malicious", 0, files.malicious),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full numbers")
    parser.add_argument("--only", default="", help="rows whose name has this in it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", action="store_true", help="leave the runs' folders")
    args = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="seg_plugins_faults_"))
    os.environ["DETECTRON2_DATASETS"] = str(work / "datasets")
    (work / "datasets").mkdir()
    import torch
    import warm

    torch.set_num_threads(1)
    warm.register_dataset(work / "datasets")
    print("| fault | runs | result | as required | seconds |\n|---|---|---|---|---|", flush=True)
    failed = 0
    for name, full, campaign in campaigns():
        if args.only not in name:
            continue
        folder = work / name.replace(" ", "_")
        folder.mkdir()
        begin = time.monotonic()
        runs = max(2, round(full * args.scale)) if full else 0
        row = campaign(runs, random.Random(args.seed), folder)
        print(f"{row.line()} {time.monotonic() - begin:.0f} |", flush=True)
        failed += not row.passed
        if row.passed and not args.keep:
            shutil.rmtree(folder)
    if failed:
        print(f"Logs of what failed: {work}")
    elif not args.keep:
        shutil.rmtree(work)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
