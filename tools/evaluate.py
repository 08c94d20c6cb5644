#!/usr/bin/env python
"""Score predictions that lie in files, without a model; exit status 1 where it cannot be done.

python tools/evaluate.py --dataset coco_2017_val --predictions coco_instances_results.json
python tools/evaluate.py --dataset camvid_test --predictions labels/ --json scores.json
python tools/evaluate.py --dataset cityscapes_fine_sem_seg_val --predictions cityscapes_sem_seg/
python tools/evaluate.py --config-file output/run/config.yaml --predictions output/run/inference
python tools/evaluate.py --custom datasets/my.yaml --predictions out/ TEST.BOUNDARY_MEASURES True

The digits are those of the evaluation that wrote the files, given its TEST.DETECTIONS_PER_IMAGE and
TEST.BOUNDARY_MEASURES; docs/evaluation.md lists the formats.
"""

import argparse
import signal
import sys
from pathlib import Path

import seg_plugins
from seg_plugins import SegPluginsError
from seg_plugins.config.loading import merge_opts
from seg_plugins.data import DatasetError, apply_custom_dataset, register_custom_dataset
from seg_plugins.data.datasets.folder_pairs import (
    PREFIX,
    apply_folder_datasets,
    count_classes,
    register_folder_dataset,
)
from seg_plugins.evaluation import format_results, score_files
from seg_plugins.evaluation.results import readable_json
from seg_plugins.io.files import write_atomically
from seg_plugins.plugins import add_import_argument

from detectron2.config import CfgNode


def argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--dataset",
        help="a registered name, folder:IMAGES,MASKS, or a name of --custom or --config-file; "
        "needed where those have several test sets",
    )
    parser.add_argument("--predictions", required=True, help="a file or folder")
    parser.add_argument("--output", help="folder for the evaluators' own result files")
    parser.add_argument("--json", help="write the scores to this file too")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--custom", help="a YAML file: see datasets/custom.example.yaml")
    source.add_argument("--config-file", help="take test set and options of a configuration")
    add_import_argument(parser)
    parser.add_argument("--num-classes", type=int, help="of folder:...; as many as the masks show")
    parser.add_argument("opts", nargs="*", help="KEY VALUE pairs: TEST.BOUNDARY_MEASURES True, ...")
    return parser


def main(args: argparse.Namespace) -> int:
    cfg = seg_plugins.load_config(args.config_file) if args.config_file else seg_plugins.get_cfg()
    merge_opts(cfg, args.opts)
    name = _dataset(args, cfg)
    results = score_files(name, args.predictions, args.output, cfg=cfg)
    print(f"{args.predictions} on {name}:\n{format_results(results)}")
    if args.json:
        content = {"dataset": name, "predictions": args.predictions, "results": results}
        text = readable_json(content) + "\n"
        write_atomically(Path(args.json), lambda file: file.write(text.encode()))
    return 0


def _dataset(args: argparse.Namespace, cfg: CfgNode) -> str:
    """The dataset to score on, registered."""
    names: list[str] = []
    if args.custom:
        splits = register_custom_dataset(args.custom)
        names = [splits["val"]] if "val" in splits else list(splits.values())
    elif args.config_file:
        apply_custom_dataset(cfg)
        apply_folder_datasets(cfg)
        names = list(cfg.DATASETS.TEST)
    if args.dataset:
        if args.dataset.startswith(PREFIX) and args.dataset not in names:
            register_folder_dataset(args.dataset, args.num_classes or count_classes(args.dataset))
        return args.dataset
    if len(names) != 1:
        known = f" ({', '.join(names)})" if names else ", --custom or --config-file"
        raise DatasetError(f"needs --dataset{known}")
    return names[0]


if __name__ == "__main__":
    if hasattr(signal, "SIGPIPE"):  # `... | head` ends it quietly
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        sys.exit(main(argument_parser().parse_args()))
    except SegPluginsError as error:
        sys.exit(f"error: {error}")
