#!/usr/bin/env python
"""Write a trained model as ONNX, TorchScript or safetensors, and run the file beside the model.

    tools/export_model.py --config-file run/config.yaml --weights run/model_final.pth \\
        --format onnx --output exported

A sliding window becomes part of the file: add MODEL.INFERENCE.MODE slide MODEL.INFERENCE.WINDOW
"[512, 512]" MODEL.INFERENCE.STRIDE "[384, 384]".
"""

from __future__ import annotations

import argparse
import sys

import seg_plugins  # noqa: F401 - first: it makes Detectron2 run and registers everything
from seg_plugins import SegPluginsError
from seg_plugins.export import FORMATS, export_model, load_for_export
from seg_plugins.plugins import add_import_argument


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("--config-file", required=True, help="config.yaml of a run")
    add_import_argument(result)
    result.add_argument("--weights", default="", help="file; default: MODEL.WEIGHTS")
    result.add_argument("--format", required=True, choices=list(FORMATS))
    result.add_argument("--output", required=True, help="folder for model.onnx, .pt, .safetensors")
    result.add_argument("opts", nargs="*", metavar="KEY VALUE", help="configuration keys")
    return result


def main(arguments: argparse.Namespace) -> None:
    cfg, model = load_for_export(arguments.config_file, arguments.weights, arguments.opts)
    result = export_model(cfg, model, arguments.format, arguments.output, report=print)
    print(f"{result.path}: {result.path.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    try:
        main(parser().parse_args())
    except (SegPluginsError, OSError) as error:
        sys.exit(f"error: {error}")
