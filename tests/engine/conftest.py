"""A configuration that trains in seconds."""

from __future__ import annotations

import argparse

from seg_plugins.engine import argument_parser

import pytest

TINY = [
    *("MODEL.TIMM.NAME", "test_resnet", "MODEL.TIMM.OUTPUT_STRIDE", "16"),
    *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", "3", "MODEL.SEM_SEG_HEAD.ASPP_CHANNELS", "8"),
    *("MODEL.SEM_SEG_HEAD.CONVS_DIM", "8", "MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS", "[8]"),
    *("DATASETS.TRAIN", "('tiny_semantic_train',)", "DATASETS.TEST", "('tiny_semantic_test',)"),
    *("INPUT.MIN_SIZE_TRAIN", "(40,)", "INPUT.MIN_SIZE_TEST", "40", "INPUT.CROP.ENABLED", "False"),
    *("SOLVER.IMS_PER_BATCH", "2", "SOLVER.MAX_ITER", "3", "SOLVER.WARMUP_ITERS", "0"),
    *("SOLVER.AMP.ENABLED", "False", "DATALOADER.NUM_WORKERS", "0", "SEED", "7", "LOG_PERIOD", "1"),
]


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
