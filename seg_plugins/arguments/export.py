"""Flags of ``seg-plugins export``."""

from __future__ import annotations

import argparse

# `seg_plugins.export.FORMATS`, which a test compares.
FORMATS = ("onnx", "torchscript", "safetensors")

ABOUT = "The file is run beside the model and compared."
EXAMPLES = """
  %(prog)s --config-file run/config.yaml --weights run/model_final.pth \\
      --format onnx --output exported
  %(prog)s --config-file run/config.yaml --format torchscript --output exported \\
      MODEL.INFERENCE.MODE slide MODEL.INFERENCE.WINDOW "[512, 512]" \\
      MODEL.INFERENCE.STRIDE "[384, 384]"    # with the sliding window in the file
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    add = parser.add_argument
    add("--config-file", required=True, metavar="FILE", help="config.yaml of a run")
    add("--weights", default="", metavar="FILE", help="default: MODEL.WEIGHTS")
    add("--format", required=True, choices=FORMATS, help="of the file")
    add("--output", required=True, metavar="DIR", help="for model.onnx, .pt or .safetensors")
    add("opts", nargs="*", metavar="KEY VALUE", help="configuration values")
