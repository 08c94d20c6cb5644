#!/usr/bin/env python
"""Train a shipped configuration on your data and compare with the published figure.

python tools/reproduce.py coco/mask_rcnn_r50_fpn_1x.yaml --num-gpus 8
python tools/reproduce.py dsb2018/mask_rcnn_r18_fpn.yaml --expect segm/AP=61.06 --tolerance 2
python tools/reproduce.py --table          # every configuration with a published figure

The data are checked first, then the model is trained and evaluated as the configuration says. The
exit status is 0 where the figure is reached: not below the expected one by more than the tolerance.
"""

from __future__ import annotations

import argparse
import difflib
import subprocess
import sys
from pathlib import Path

from seg_plugins import SegPluginsError, load_config
from seg_plugins.config import find_config
from seg_plugins.zoo.published import PUBLISHED, Published

from model_zoo import values

TOOLS = Path(__file__).resolve().parent


def table() -> str:
    """The configurations with a published figure, as Markdown."""
    lines = ["| configuration | metric | published | source | run here |", "|---|---|---|---|---|"]
    for name in sorted(PUBLISHED):
        row = PUBLISHED[name]
        lines.append(f"| configs/{name} | {row.metric} | {row.value:g} | {row.source} | not run |")
    return "\n".join(lines)


def expected(args: argparse.Namespace, name: str) -> Published:
    """The figure of the command line, else the published one.

    Raises:
        SegPluginsError: there is neither.
    """
    if args.expect:
        metric, _, text = args.expect.partition("=")
        try:
            value = float(text)
        except ValueError:
            raise SegPluginsError(f"--expect {args.expect}: give METRIC=NUMBER") from None
        tolerance = 0.5 if args.tolerance is None else args.tolerance
        return Published(name, metric, value, "--expect", tolerance)
    if name not in PUBLISHED:
        near = difflib.get_close_matches(name, PUBLISHED, 3, 0.4)
        raise SegPluginsError(
            f"{name} has no published figure here: give --expect METRIC=VALUE"
            + (f". Those nearest: {', '.join(near)}" if near else "")
        )
    row = PUBLISHED[name]
    tolerance = row.tolerance if args.tolerance is None else args.tolerance
    return Published(name, row.metric, row.value, row.source, tolerance)


def call(*command: str) -> None:
    """Run a tool beside this one.

    Raises:
        SegPluginsError: it fails; its own output says why.
    """
    print("+ " + " ".join(command), flush=True)
    status = subprocess.run([sys.executable, str(TOOLS / command[0]), *command[1:]]).returncode
    if status:
        raise SegPluginsError(f"{command[0]} ended with status {status}; the reason stands above")


def reproduce(args: argparse.Namespace) -> bool:
    """Check, train, evaluate, compare; whether the figure is reached."""
    file = find_config(args.config)
    name = "/".join(file.parts[-2:])
    wanted = expected(args, name)
    cfg = load_config(file, args.opts)
    for dataset in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        call("check_dataset.py", "--dataset", dataset)
    launch = () if args.num_gpus is None else ("--num-gpus", str(args.num_gpus))
    call("train_net.py", "--config-file", str(file), *launch, *args.opts)
    folder = Path(cfg.OUTPUT_DIR)
    measured = values(folder)
    if wanted.metric not in measured:
        raise SegPluginsError(
            f"{folder}: the evaluation gives {', '.join(measured) or 'nothing'}, not "
            f"{wanted.metric}"
        )
    value = measured[wanted.metric]
    reached = value >= wanted.value - wanted.tolerance
    print(
        f"{name}: {wanted.metric} {value:.2f}, expected {wanted.value:g} ({wanted.source}) within "
        f"{wanted.tolerance:g}: {'reached' if reached else 'NOT reached'}"
    )
    return reached


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", nargs="?", metavar="CONFIG", help="a shipped configuration")
    parser.add_argument("--table", action="store_true", help="print the published figures")
    parser.add_argument("--expect", metavar="METRIC=VALUE", help="instead of the published figure")
    parser.add_argument("--tolerance", type=float, metavar="POINTS", help="default: the table's")
    parser.add_argument("--num-gpus", type=int, metavar="N", help="as of train_net.py")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE")
    args = parser.parse_args()
    if args.table:
        print(table())
        return 0
    if not args.config:
        parser.error("name a configuration, or --table")
    return 0 if reproduce(args) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SegPluginsError as error:
        sys.exit(f"error: {error}")
