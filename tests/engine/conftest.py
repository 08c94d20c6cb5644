"""A configuration that trains in seconds, and a dataset that other processes can read."""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from seg_plugins.engine import argument_parser

import pytest
from tiny_run import TINY


@pytest.fixture
def tiny_args(tiny_semantic, tmp_path):
    """Makes arguments of train_net for a tiny model; keyword flags and trailing options."""

    def make(*opts: str, **flags: bool) -> argparse.Namespace:
        args = argument_parser().parse_args(
            ["--config-file", "quickstart/deeplabv3plus_r18_shapes.yaml"]
        )
        args.num_gpus = 0
        args.opts = [*TINY, "OUTPUT_DIR", str(tmp_path / "run"), *opts]
        vars(args).update(flags)
        return args

    return make


@pytest.fixture
def custom(tiny_semantic, tmp_path):
    """The tiny dataset as a user would describe it: other processes know nothing of ours."""
    source = Path(os.environ["DETECTRON2_DATASETS"]) / "tiny_semantic"
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for file in source.glob("*_[0-9].png"):
        shutil.copy(file, tmp_path / "images")
        shutil.copy(source / f"{file.stem}_label.png", tmp_path / "masks" / file.name)
    description = tmp_path / "custom.yaml"
    description.write_text(
        "name: tiny_custom\ntask: semantic\nclasses: [dark, middle, bright]\n"
        "images: images\nmasks: masks\nimage_suffix: .png\nmask_suffix: .png\n"
        "split: {val_fraction: 0.25, seed: 0}\n"
    )
    return description
