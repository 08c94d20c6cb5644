#!/usr/bin/env python
"""Train, resume or evaluate any system of seg_plugins or Detectron2: see --help."""

from __future__ import annotations

import argparse
import sys
from typing import Any

import seg_plugins  # noqa: F401 - first: it makes Detectron2 run and registers everything
from seg_plugins import SegPluginsError
from seg_plugins.engine import Trainer, argument_parser, launch, setup
from seg_plugins.engine.run_report import write_pictures, write_report


def evaluate(cfg: Any, resume: bool) -> dict[str, Any]:
    """Evaluate MODEL.WEIGHTS (or the last checkpoint) on DATASETS.TEST."""
    start = cfg.clone()
    start.defrost()
    start.MODEL.TIMM.PRETRAINED = False  # the weights replace them
    model = Trainer.build_model(start)
    checkpointer = Trainer.build_checkpointer(cfg, model)
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=resume, complete=True)
    results = Trainer.test(cfg, model)
    write_pictures(cfg, model)
    write_report(cfg, model)
    return results


def main(args: argparse.Namespace) -> dict[str, Any] | None:
    cfg = setup(args)
    if args.eval_only:
        return evaluate(cfg, args.resume)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    return trainer.train()


if __name__ == "__main__":
    try:
        launch(main, argument_parser().parse_args())
    except SegPluginsError as error:
        sys.exit(f"error: {error}")
