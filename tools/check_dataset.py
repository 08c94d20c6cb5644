#!/usr/bin/env python
"""Check a dataset before training on it; exit status 1 where it has errors.

python tools/check_dataset.py --dataset camvid_train --against camvid_val
python tools/check_dataset.py --custom datasets/my.yaml --json report.json
python tools/check_dataset.py --custom datasets/my.yaml --dataset my_val
python tools/check_dataset.py --dataset folder:my/images,my/masks --num-classes 4
python tools/check_dataset.py --config-file configs/... DATASETS.TRAIN "('camvid_train',)"
"""

import argparse
import json
import signal
import sys

import seg_plugins
from seg_plugins import SegPluginsError
from seg_plugins.data import apply_custom_dataset, register_custom_dataset
from seg_plugins.data.datasets.folder_pairs import (
    PREFIX,
    count_classes,
    register_folder_dataset,
)
from seg_plugins.data.doctor import check_dataset
from seg_plugins.plugins import add_import_argument


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--dataset", help="a registered name, folder:IMAGES,MASKS, or a name of --custom"
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--custom", help="a YAML file: see datasets/custom.example.yaml")
    source.add_argument("--config-file", help="check the datasets of a configuration")
    add_import_argument(parser)
    parser.add_argument("--against", nargs="*", default=[], help="datasets to look for leaks in")
    parser.add_argument(
        "--num-classes", type=_positive, help="of folder:...; as many as the masks show"
    )
    parser.add_argument("--samples", type=_positive, help="check this many samples only")
    parser.add_argument("--workers", type=_positive, help="threads; as many as cores")
    parser.add_argument("--json", help="write the report to this file too")
    parser.add_argument("opts", nargs="*", help="KEY VALUE pairs for --config-file")
    args = parser.parse_args()
    if not (args.dataset or args.custom or args.config_file):
        parser.error("needs --dataset, --custom or --config-file")
    if args.dataset and args.config_file:
        parser.error("--config-file names the datasets; leave --dataset out")
    if args.opts and not args.config_file:
        parser.error(f"unexpected {args.opts[0]!r}; KEY VALUE pairs belong to --config-file")
    try:
        names, against = _names(args)
    except (SegPluginsError, ValueError) as error:
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
        try:
            with open(args.json, "w", encoding="utf-8") as file:
                json.dump([report.as_dict() for report in reports], file, indent=1)
        except OSError as error:
            print(f"ERROR --json {args.json}: {error.strerror}", file=sys.stderr)
            return 1
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
        cfg = seg_plugins.load_config(args.config_file, args.opts)
        apply_custom_dataset(cfg)
        names = list(dict.fromkeys([*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]))
    return names, names[1:] + args.against


def _progress(done: int, total: int) -> None:
    bar = "#" * (30 * done // total)
    end = "\n" if done == total else ""
    print(f"\r[{bar:<30}] {done}/{total}", end=end, file=sys.stderr, flush=True)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 1")
    return value


if __name__ == "__main__":
    if hasattr(signal, "SIGPIPE"):  # `... | head` ends it quietly
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(main())
