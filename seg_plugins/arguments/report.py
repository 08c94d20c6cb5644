"""Flags of ``seg-plugins report``."""

from __future__ import annotations

import argparse

ABOUT = """
Figures come with 95% intervals from resamples of the test images, and runs are
compared on the same resamples: "a better than b in 97.1% of 2,000 resamples"."""
EXAMPLES = """
  %(prog)s output/run                   # output/run/report.html anew
  %(prog)s output/run --explain         # and what is behind the scores
  %(prog)s output/run_a output/run_b --output comparison.html
  %(prog)s output/run/seed_1 output/run/seed_2     # mean and range over the seeds
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="folders of trainings")
    add(
        "--output",
        metavar="FILE",
        help="default: report.html in the one folder, or comparison.html here",
    )
    add(
        "--resamples",
        type=int,
        default=2000,
        metavar="N",
        help="0: no intervals (default: 2000)",
    )
    add("--seed", type=int, default=0, metavar="N", help="of the resamples (default: 0)")
    add(
        "--explain",
        action="store_true",
        help="first explain the predictions that the runs saved "
        "(TEST.SAVE_PREDICTIONS True): <task>_explanations.json beside "
        "the results; reports made later show them too",
    )
    add(
        "--slice",
        default="",
        metavar="KEY",
        help="with --explain: scores for each value of this key of the dataset's records, too",
    )


def check_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with a usage error where a value is out of its range."""
    if args.resamples < 0 or args.seed < 0:
        parser.error("--resamples and --seed must not be negative")
    if args.slice and not args.explain:
        parser.error("--slice KEY belongs to --explain: give both")
