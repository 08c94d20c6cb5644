"""Flags of ``seg-plugins check``."""

from __future__ import annotations

import argparse

ABOUT = "The exit status is 1 where it has errors."
EXAMPLES = """
  %(prog)s --dataset camvid_train --against camvid_val
  %(prog)s --custom datasets/my.yaml --json report.json
  %(prog)s --custom datasets/my.yaml --dataset my_val
  %(prog)s --dataset folder:my/images,my/masks --num-classes 4
  %(prog)s --config-file configs/... DATASETS.TRAIN "('camvid_train',)"
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.usage = (
        "%(prog)s (--dataset NAME | --custom FILE | --config-file FILE)\n"
        "         [flags] [KEY VALUE ...]"
    )
    add = parser.add_argument
    add(
        "--dataset",
        metavar="NAME",
        help="registered, of --custom, or folder:IMAGES,MASKS",
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--custom", metavar="FILE", help="a YAML file like datasets/custom.example.yaml"
    )
    source.add_argument(
        "--config-file", metavar="FILE", help="check the datasets of a configuration"
    )
    add("--against", nargs="*", default=[], metavar="NAME", help="datasets to look for leaks in")
    add(
        "--num-classes",
        type=_positive,
        metavar="N",
        help="of folder:... (default: as many as the masks show)",
    )
    add("--samples", type=_positive, metavar="N", help="check so many samples only")
    add("--workers", type=_positive, metavar="N", help="threads (default: as many as cores)")
    add("--json", metavar="FILE", help="write the report there too")
    add("opts", nargs="*", metavar="KEY VALUE", help="configuration values for --config-file")


def check_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with a usage error where flags do not go together."""
    if not (args.dataset or args.custom or args.config_file):
        parser.error("needs --dataset, --custom or --config-file")
    if args.dataset and args.config_file:
        parser.error("--config-file names the datasets; leave --dataset out")
    if args.opts and not args.config_file:
        parser.error(f"unexpected {args.opts[0]!r}; KEY VALUE pairs belong to --config-file")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 1")
    return value
