"""A configuration that trains in seconds."""

from __future__ import annotations

import argparse

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
