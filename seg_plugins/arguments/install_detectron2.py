"""Flags of ``seg-plugins install-detectron2``."""

from __future__ import annotations

import argparse
from pathlib import Path

TAKES_PARTS = False
ABOUT = "One that is there already is left as it is. PyTorch has to be installed first."
EXAMPLES = """
  %(prog)s                 # pure-Python wheel of release 0.6
  %(prog)s --source git    # upstream main, with its C++ extension
  %(prog)s --wheel DIR     # the wheel, for another machine
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    add = parser.add_argument
    add(
        "--source",
        choices=("release", "git"),
        default="release",
        help="the package index or GitHub (default: release)",
    )
    add("--wheel", type=Path, metavar="DIR", help="put the wheel there instead")
