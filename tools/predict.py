#!/usr/bin/env python
"""Predict images, folders, videos and huge TIFFs with any trained system: see --help."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import seg_plugins  # noqa: F401 - first: it makes Detectron2 run and registers everything
from seg_plugins import SegPluginsError, zoo
from seg_plugins.engine.process import keep_freed_memory
from seg_plugins.prediction import Predictor
from seg_plugins.prediction.arguments import argument_parser
from seg_plugins.prediction.inputs import find_sources
from seg_plugins.prediction.outputs import OutputOptions
from seg_plugins.prediction.run import RunOptions, grid_for, run


def names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def main(args: argparse.Namespace) -> int:
    output = Path(args.output)
    outputs = OutputOptions(names(args.save), names(args.classes), args.edge, args.blur_strength)
    sources = find_sources(args.input, output, args.pages)
    if bool(args.model) == bool(args.config_file) or (args.model and args.weights):
        raise SegPluginsError("Give either --config-file (and --weights) or --model")
    options = {
        "opts": args.opts,
        "device": args.device,
        "min_score": args.min_score,
        "batch_size": args.batch_size,
    }
    if args.model:
        model = zoo.get(args.model)
        args.config_file, args.weights = model.config, model.address
    predictor = Predictor.from_config(args.config_file, args.weights, **options)
    if next(predictor.model.parameters()).device.type == "cpu":
        keep_freed_memory()
    run_options = RunOptions(
        outputs,
        grid_for(predictor.model, args.window, args.overlap, args.margin),
        smoothing=args.smooth,
        **({"window_pixels": 0} if args.window else {}),
    )
    summary = run(predictor, sources, output, run_options)
    print(f"{output}: {summary.done} predicted, {summary.skipped} there already")
    for path in summary.files:
        print(f"  {path}")
    if summary.failed:
        print(f"{len(summary.failed)} could not be predicted:", file=sys.stderr)
        for path, reason in summary.failed:
            print(f"  {path}: {reason}", file=sys.stderr)
    return 1 if summary.failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main(argument_parser().parse_args()))
    except (SegPluginsError, ValueError) as error:  # ValueError: of a model's parts
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command continues")
