"""``seg-plugins predict``: images, folders, videos and huge TIFFs with any trained system."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from .. import zoo
from ..engine.process import keep_freed_memory
from ..io.errors import SegPluginsError
from ..prediction import Predictor
from ..prediction.inputs import find_sources
from ..prediction.outputs import OutputOptions
from ..prediction.run import RunOptions, grid_for
from ..prediction.run import run as predict
from ..runtime import is_model_file

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


def open_predictor(args: argparse.Namespace) -> Predictor:
    """The predictor of a training run, a model of the zoo or an exported file.

    Raises:
        SegPluginsError: arguments that do not go together.
    """
    if args.threads < 0:
        raise SegPluginsError(f"--threads {args.threads}: a number from 1; 0 leaves it to us")
    if args.threads:
        torch.set_num_threads(args.threads)
    options = {
        "opts": args.opts,
        "min_score": args.min_score,
        "batch_size": args.batch_size,
        "precision": args.precision,
    }
    runtime = "" if args.runtime == "torch" else args.runtime
    file = next((name for name in (args.model, args.weights) if is_model_file(name)), "")
    if file or runtime:
        if args.runtime == "torch":
            raise SegPluginsError(
                f"{file} is an exported file, which PyTorch does not run: leave --runtime out, or "
                "give the run's --config-file and --weights"
            )
        if not file:
            raise SegPluginsError(
                f"--runtime {runtime} runs exported files: write one with seg-plugins export "
                "--format onnx, and give it as --model exported/model.onnx"
            )
        if args.config_file or (args.model and args.weights):
            raise SegPluginsError(
                f"{file} carries its configuration and weights: give it alone, as --model"
            )
        if args.device not in ("", "cpu"):
            raise SegPluginsError(
                f"--device {args.device}: exported files run on the CPU here; for a GPU give the "
                "run's --config-file and --weights"
            )
        return Predictor.from_file(file, runtime=runtime, threads=args.threads, **options)
    if bool(args.model) == bool(args.config_file) or (args.model and args.weights):
        raise SegPluginsError("Give either --config-file (and --weights) or --model")
    if args.model:
        model = zoo.get(args.model)
        args.config_file, args.weights = model.config, model.address
    return Predictor.from_config(args.config_file, args.weights, device=args.device, **options)


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
    predictor = open_predictor(args)
    if predictor.device.type == "cpu":
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
