"""Flags of ``seg-plugins evaluate``."""

from __future__ import annotations

import argparse

ABOUT = """The digits are those of the evaluation that wrote the files, given its options
TEST.DETECTIONS_PER_IMAGE, TEST.BOUNDARY_MEASURES and TEST.CLASS_AGNOSTIC; docs/evaluation.md lists
the formats."""
EXAMPLES = """
  %(prog)s --dataset coco_2017_val --predictions coco_instances_results.json
  %(prog)s --dataset camvid_test --predictions labels/ --json scores.json
  %(prog)s --config-file output/run/config.yaml --predictions output/run/inference
  %(prog)s --custom my.yaml --predictions out/ TEST.BOUNDARY_MEASURES True
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.usage = (
        "%(prog)s (--dataset NAME | --custom FILE | --config-file FILE)\n"
        "         --predictions PATH [flags] [KEY VALUE ...]"
    )
    add = parser.add_argument
    add("--predictions", required=True, metavar="PATH", help="a file or folder")
    add(
        "--dataset",
        metavar="NAME",
        help="registered, folder:IMAGES,MASKS, or one of several test sets of the next two",
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--custom", metavar="FILE", help="a YAML file like datasets/custom.example.yaml"
    )
    source.add_argument(
        "--config-file", metavar="FILE", help="take test set and options of a configuration"
    )
    add("--output", metavar="FOLDER", help="for the evaluators' own result files")
    add("--json", metavar="FILE", help="write the scores there too")
    add(
        "--num-classes",
        type=int,
        metavar="N",
        help="of folder:... (default: as many as the masks show)",
    )
    add("opts", nargs="*", metavar="KEY VALUE", help="configuration values")


def check_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with a usage error where flags do not go together."""
    if not (args.dataset or args.custom or args.config_file):
        parser.error("needs --dataset, --custom or --config-file")
