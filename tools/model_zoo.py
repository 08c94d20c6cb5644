#!/usr/bin/env python
"""Write MODEL_ZOO.md rows from run folders: every number comes from the files of the run.

python tools/model_zoo.py output/camvid_deeplabv3plus_r18 output/other_run > rows.md
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path

COLUMNS = (
    "system", "dataset", "metric", "value", "config", "hardware", "iterations", "time",
    "parameters", "sha256",
)  # fmt: skip
# The results of a task that get a row, in this order.
METRICS = {
    "sem_seg": ("mIoU",),
    "bbox": ("AP", "AP50"),
    "segm": ("AP", "AP50"),
    "panoptic_seg": ("PQ", "SQ", "RQ"),
}


def rows(run: Path) -> list[list[str]]:
    """The rows of one run: one metric each."""
    record = json.loads((run / "run.json").read_text())
    digest = hashlib.sha256((run / "model_final.pth").read_bytes()).hexdigest()
    found = {}
    for line in (run / "metrics.json").read_text().splitlines():
        found.update(json.loads(line))  # the last evaluation wins
    common = [
        f"{_config(record['command'])} SEED {record['seed']}",  # what repeats the run
        record["hardware"],
        f"{record['iterations']} x {record['batch']}",
        f"{record['seconds'] / 60:.1f} min",
        f"{record['parameters'] / 1e6:.2f} M",
        digest[:12],
    ]
    dataset = ", ".join(record["datasets"]["test"])
    return [
        [record["system"], dataset, f"{task}/{metric}", f"{found[f'{task}/{metric}']:.2f}", *common]
        for task, metrics in METRICS.items()
        for metric in metrics
        if f"{task}/{metric}" in found
    ]


def _config(command: str) -> str:
    words = command.split()
    path = words[words.index("--config-file") + 1]
    return path[path.index("configs/") :] if "configs/" in path else path


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="output folder of a run")
    print("| " + " | ".join(COLUMNS) + " |")
    print("|" + "---|" * len(COLUMNS))
    for run in parser.parse_args().runs:
        try:
            for row in rows(run):
                print("| " + " | ".join(row) + " |")
        except FileNotFoundError as error:
            print(f"error: {run} is not a finished run: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
