"""Flags of ``seg-plugins train``, with Detectron2's names."""

from __future__ import annotations

import argparse
import os

EXAMPLES = """
  %(prog)s --data my.yaml
  %(prog)s --config-file configs/quickstart/deeplabv3plus_r18_shapes.yaml
  %(prog)s --config-file configs/camvid/deeplabv3plus_r18.yaml --eval-only \\
      MODEL.WEIGHTS output/camvid/model_final.pth TEST.AUG.ENABLED True
  torchrun --nproc-per-node 8 -m seg_plugins train --config-file CONFIG
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.usage = "%(prog)s (--config-file FILE | --data FILE) [flags] [KEY VALUE ...]"
    add = parser.add_argument
    add(
        "--config-file",
        default="",
        metavar="FILE",
        help="a YAML file, or the name of a shipped one",
    )
    add(
        "--data",
        default="",
        metavar="FILE",
        help="description of your own dataset (docs/data.md); alone, it "
        "chooses a configuration that fits",
    )
    add(
        "--resume",
        action="store_true",
        help="go on from the last checkpoint in OUTPUT_DIR, if any",
    )
    add(
        "--eval-only",
        action="store_true",
        help="evaluate MODEL.WEIGHTS (--resume: the last checkpoint)",
    )
    add(
        "--num-gpus",
        type=int,
        metavar="N",
        help="per machine; 0: CPU (default: 1 if there is one)",
    )
    add("--num-machines", type=int, default=1, metavar="N", help="machines in all (default: 1)")
    add(
        "--machine-rank",
        type=int,
        default=0,
        metavar="I",
        help="which of them this one is, from 0 (default: 0)",
    )
    add(
        "--dist-url",
        default="auto",
        metavar="URL",
        help="tcp://HOST:PORT of machine 0 (default: a free port here)",
    )
    add(
        "--timeout",
        type=float,
        default=float(os.environ.get("SEG_PLUGINS_TIMEOUT_MINUTES", "5")),
        metavar="MINUTES",
        help="under torchrun, processes wait so long for each other "
        "(default: SEG_PLUGINS_TIMEOUT_MINUTES, else 5)",
    )
    add(
        "opts",
        nargs=argparse.REMAINDER,
        metavar="KEY VALUE",
        help="configuration values, at the end: SOLVER.BASE_LR 0.01",
    )
