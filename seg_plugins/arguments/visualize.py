"""Flags of ``seg-plugins visualize``."""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLES = """
  %(prog)s --dataset camvid_train --output sheet.png
  %(prog)s --config-file configs/... --count 24 --output folder/
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.usage = (
        "%(prog)s (--dataset NAME | --custom FILE | --config-file FILE)\n"
        "         --output PATH [flags] [KEY VALUE ...]"
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--dataset", metavar="NAME", help="registered, or folder:IMAGES,MASKS; as on disk"
    )
    source.add_argument(
        "--custom", metavar="FILE", help="a YAML file like datasets/custom.example.yaml"
    )
    source.add_argument(
        "--config-file", metavar="FILE", help="draw its training set after augmentation"
    )
    add = parser.add_argument
    add("--output", required=True, metavar="PATH", help="a picture, or a folder for single ones")
    add("--count", type=int, default=12, metavar="N", help="of samples (default: 12)")
    add("--seed", type=int, default=0, metavar="N", help="of the augmentation (default: 0)")
    add("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="configuration values")


def check_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with a usage error where a value is out of its range."""
    known = Path(args.output).suffix in ("", ".png", ".jpg")
    if not known or args.count < 1 or args.seed < 0:
        parser.error("--output should be a .png, a .jpg or a folder, --count and --seed positive")
