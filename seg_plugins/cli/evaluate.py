"""``seg-plugins evaluate``: scores of predictions that lie in files, without a model."""

from __future__ import annotations

import argparse
from pathlib import Path

from detectron2.config import CfgNode

from ..config import get_cfg, load_config
from ..config.loading import merge_opts
from ..data import DatasetError, apply_custom_dataset, register_custom_dataset
from ..data.datasets.folder_pairs import (
    PREFIX,
    apply_folder_datasets,
    count_classes,
    register_folder_dataset,
)
from ..evaluation import format_results, score_files
from ..evaluation.results import readable_json
from ..io.errors import SegPluginsError
from ..io.files import write_atomically

EXPECTED = (SegPluginsError,)


def run(args: argparse.Namespace) -> None:
    """Print the table of a training's end, and write the scores to ``--json``.

    Raises:
        SegPluginsError: what is wrong with dataset, options or predictions.
    """
    cfg = load_config(args.config_file) if args.config_file else get_cfg()
    merge_opts(cfg, args.opts)
    name = _dataset(args, cfg)
    results = score_files(name, args.predictions, args.output, cfg=cfg)
    print(f"{args.predictions} on {name}:\n{format_results(results)}")
    if args.json:
        content = {"dataset": name, "predictions": args.predictions, "results": results}
        text = readable_json(content) + "\n"
        write_atomically(Path(args.json), lambda file: file.write(text.encode()))


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
        raise DatasetError(f"there are {len(names)} test sets ({', '.join(names)}): give --dataset")
    return names[0]
