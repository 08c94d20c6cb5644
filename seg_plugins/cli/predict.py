"""``seg-plugins predict``: images, folders, videos and huge TIFFs with any trained system."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .. import zoo
from ..engine.process import keep_freed_memory
from ..io.errors import SegPluginsError
from ..prediction import Predictor
from ..prediction.inputs import find_sources
from ..prediction.outputs import OutputOptions
from ..prediction.run import RunOptions, grid_for
from ..prediction.run import run as predict

EXPECTED = (SegPluginsError, ValueError)  # ValueError: of a model's parts


def run(args: argparse.Namespace) -> int:
    """Predict what is given; the exit status, 1 where some of it could not be predicted."""
    try:
        return main(args)
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command continues")


def names(text: str) -> tuple[str, ...]:
    """The names in a list with commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def main(args: argparse.Namespace) -> int:
    """Predict, and print what was done; the exit status.

    Raises:
        SegPluginsError: arguments that do not go together, or weights that do not fit.
        ValueError: names, inputs or windows that do not fit the model.
    """
    output = Path(args.output)
    outputs = OutputOptions(
        names(args.save),
        names(args.classes),
        args.edge,
        args.blur_strength,
        label_files=args.label_files,
        values=args.mask_values,
        clear=None if args.clear is None else names(args.clear),
        components=args.instances == "components",
    )
    sources = find_sources(args.input, output, args.pages, together=args.label_files == "tif")
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
    summary = predict(predictor, sources, output, run_options)
    print(f"{output}: {summary.done} predicted, {summary.skipped} there already")
    for path in summary.files:
        print(f"  {path}")
    if summary.failed:
        print(f"{len(summary.failed)} could not be predicted:", file=sys.stderr)
        for path, reason in summary.failed:
            print(f"  {path}: {reason}", file=sys.stderr)
    return 1 if summary.failed else 0
