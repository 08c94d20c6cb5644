"""Break training in every way of the table below, and print what came of it.

    make faults                                     the full numbers, within an hour
    python -m tests.faults --scale 0.1              a tenth of them
    python -m tests.faults sigkill disk-full        two rows
    python -m tests.faults --missing                what an interrupted table has not got
    python -m tests.faults --table                  the table as far as it is measured

Each row goes into a file (--results) when it is complete. Exits with status 1 if one is not as
required, or --table has not got it.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT)]

from row import Row  # noqa: E402 - of this folder

# Name, full number of runs (0: each case once), module and function, further arguments.
FAULTS = (
    ("sigkill", 100, "kills.sigkill", ()),
    ("overwriting", 100, "kills.overwriting", ()),
    ("disk-full", 20, "files.disk_full", ()),
    ("damaged", 300, "files.damaged", ()),
    ("nan", 0, "nonfinite_runs.not_finite", ()),
    ("rank-static", 50, "kills.rank", ("static",)),
    ("rank-c10d", 50, "kills.rank", ("c10d",)),
    ("worker", 20, "kills.worker", ()),
    ("sigterm", 20, "kills.sigterm", ()),
    ("malicious", 0, "files.malicious", ()),
)
NAMES = tuple(name for name, *_ in FAULTS)
HEADER = "| fault | runs | result | as required | seconds |\n|---|---|---|---|---|"


def measure(name: str, scale: float, seed: int, folder: Path) -> Row:
    """Make the runs of one row. One that breaks off, or has a run that hangs, is not passed."""
    import files
    import kills
    import nonfinite_runs

    modules = {"files": files, "kills": kills, "nonfinite_runs": nonfinite_runs}
    _, full, where, arguments = FAULTS[NAMES.index(name)]
    module, _, function = where.partition(".")
    campaign = functools.partial(getattr(modules[module], function), *arguments)
    runs = max(2, round(full * scale)) if full else 0
    try:
        return campaign(runs, random.Random(seed), folder)
    except (OSError, RuntimeError, LookupError, ValueError) as error:
        traceback.print_exc()
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return Row(name, runs, f"broken off: {reason}", False)


def stored(results: Path, scale: float) -> dict[str, dict]:
    """The newest complete row of each fault that was measured at a scale."""
    if not results.is_file():
        return {}
    rows = map(json.loads, results.read_text().splitlines())
    return {row["name"]: row for row in rows if row["scale"] == scale}


def line(row: dict) -> str:
    """A stored row in Markdown."""
    return f"{Row(**{k: row[k] for k in Row.__annotations__}).line()} {row['seconds']} |"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full numbers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=ROOT / "output" / "faults.jsonl")
    parser.add_argument("--missing", action="store_true", help="not those passed at this scale")
    parser.add_argument("--table", action="store_true", help="make no runs")
    parser.add_argument("--keep", action="store_true", help="leave the runs' folders")
    args = parser.parse_args()
    unknown = set(args.names) - set(NAMES)
    if unknown:
        parser.error(f"no fault is called {', '.join(unknown)}; there are {', '.join(NAMES)}")
    rows = stored(args.results, args.scale)
    names = [name for name in NAMES if name in (args.names or NAMES)]
    missing = [name for name in names if name not in rows or not rows[name]["passed"]]
    if args.table:
        print(HEADER, *(line(rows[name]) for name in names if name in rows), sep="\n")
        return int(bool(missing))
    return run(missing if args.missing else names, args)


def run(names: list[str], args: argparse.Namespace) -> int:
    """Measure rows, print and store each; 1 if one is not as required."""
    work = Path(tempfile.mkdtemp(prefix="seg_plugins_faults_"))
    os.environ["DETECTRON2_DATASETS"] = str(work / "datasets")
    (work / "datasets").mkdir()
    import torch
    import warm

    torch.set_num_threads(1)
    warm.register_dataset(work / "datasets")
    args.results.parent.mkdir(parents=True, exist_ok=True)
    print(HEADER, flush=True)
    failed = 0
    for name in names:
        (work / name).mkdir()
        begin = time.monotonic()
        row = measure(name, args.scale, args.seed, work / name)
        content = {"name": name, "scale": args.scale, "seed": args.seed, **asdict(row),
                   "seconds": round(time.monotonic() - begin)}  # fmt: skip
        with open(args.results, "a") as file:
            file.write(json.dumps(content) + "\n")
        print(line(content), flush=True)
        failed += not row.passed
        if row.passed and not args.keep:
            shutil.rmtree(work / name)
    if failed:
        print(f"Logs of what failed: {work}")
    elif not args.keep:
        shutil.rmtree(work)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
