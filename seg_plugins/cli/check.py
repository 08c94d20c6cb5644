"""``seg-plugins check``: a dataset before training on it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ..config import load_config
from ..data import apply_custom_dataset, register_custom_dataset
from ..data.datasets.folder_pairs import PREFIX, count_classes, register_folder_dataset
from ..data.doctor import check_dataset
from ..io.errors import SegPluginsError
from ..io.files import write_atomically

EXPECTED = (SegPluginsError, ValueError)


def run(args: argparse.Namespace) -> int:
    """Check each dataset, print its table, and write all reports to ``--json``; the exit status.

    Raises:
        SegPluginsError: a dataset is not known or not readable, or the file cannot be written.
    """
    names, against = _names(args)
    reports = []
    for name in names:
        report = check_dataset(
            name,
            other_names=tuple(other for other in against if other != name),
            max_samples=args.samples,
            workers=args.workers,
            progress=_progress if sys.stderr.isatty() else None,
        )
        # Leaks are looked for once, from the training set.
        against = args.against
        print(report.table())
        reports.append(report)
    if args.json:
        text = json.dumps([report.as_dict() for report in reports], indent=1)
        write_atomically(Path(args.json), lambda file: file.write(text.encode()))
    return int(any(report.errors for report in reports))


def _names(args: argparse.Namespace) -> tuple[list[str], list[str]]:
    """The datasets to check, and those that the first must not share images with."""
    for name in (args.dataset or "", *args.against):
        if name.startswith(PREFIX):
            register_folder_dataset(name, args.num_classes or count_classes(name))
    names = list(register_custom_dataset(args.custom).values()) if args.custom else []
    if args.dataset:
        return [args.dataset], args.against
    if args.config_file:
        cfg = load_config(args.config_file, args.opts)
        apply_custom_dataset(cfg)
        names = list(dict.fromkeys([*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]))
    return names, names[1:] + args.against


def _progress(done: int, total: int) -> None:
    bar = "#" * (30 * done // total)
    end = "\n" if done == total else ""
    print(f"\r[{bar:<30}] {done}/{total}", end=end, file=sys.stderr, flush=True)
