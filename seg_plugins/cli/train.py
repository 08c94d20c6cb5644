"""``seg-plugins train``: train, resume or evaluate any system of seg_plugins or Detectron2."""

from __future__ import annotations

import argparse
from typing import Any

from ..engine import Trainer, launch, setup
from ..engine.run_report import write_pictures, write_report
from ..io.errors import SegPluginsError

EXPECTED = (SegPluginsError,)


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
    """Train, or evaluate alone, in each process of the job; the last results."""
    cfg = setup(args)
    if args.eval_only:
        return evaluate(cfg, args.resume)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    return trainer.train()


def run(args: argparse.Namespace) -> None:
    """Start the processes of the job; errors as of :func:`seg_plugins.engine.setup`."""
    launch(main, args)
