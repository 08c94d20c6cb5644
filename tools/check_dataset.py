#!/usr/bin/env python
"""Check a dataset before training on it; exit status 1 where it has errors.

python tools/check_dataset.py --dataset camvid_train --against camvid_val
python tools/check_dataset.py --custom datasets/my.yaml --json report.json
"""

import argparse
import json
import sys

import seg_plugins
from seg_plugins.data import DatasetError, apply_custom_dataset, register_custom_dataset
from seg_plugins.data.doctor import check_dataset


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--dataset", help="a registered name")
    source.add_argument("--custom", help="a YAML file: see datasets/custom.example.yaml")
    source.add_argument("--config-file", help="check the datasets of a configuration")
    parser.add_argument("--against", nargs="*", default=[], help="datasets to look for leaks in")
    parser.add_argument("--samples", type=int, help="check this many samples only")
    parser.add_argument("--workers", type=int, help="threads")
    parser.add_argument("--json", help="write the report to this file too")
    args = parser.parse_args()
    try:
        names, against = _names(args)
    except (DatasetError, ValueError) as error:
        print(f"ERROR {error}", file=sys.stderr)
        return 1
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
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump([report.as_dict() for report in reports], file, indent=1)
    return int(any(report.errors for report in reports))


def _names(args: argparse.Namespace) -> tuple[list[str], list[str]]:
    """The datasets to check, and those that the first must not share images with."""
    if args.dataset:
        return [args.dataset], args.against
    if args.custom:
        names = list(register_custom_dataset(args.custom).values())
    else:
        cfg = seg_plugins.load_config(args.config_file)
        apply_custom_dataset(cfg)
        names = list(dict.fromkeys([*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]))
    return names, names[1:] + args.against


def _progress(done: int, total: int) -> None:
    print(f"\r{done}/{total}", end="\n" if done == total else "", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
