"""Flags of ``seg-plugins export``."""

from __future__ import annotations

import argparse

# `seg_plugins.export.FORMATS`, which a test compares.
FORMATS = ("onnx", "openvino", "torchscript", "safetensors")

ABOUT = "The file is run beside the model and compared."
EXAMPLES = """
  %(prog)s --config-file run/config.yaml --weights run/model_final.pth \\
      --format onnx --output exported
  %(prog)s --config-file run/config.yaml --format openvino --output exported \\
      --int8 own_train --verify-on own_val   # INT8, as far as the metric permits
  %(prog)s --config-file run/config.yaml --format torchscript --output exported \\
      MODEL.INFERENCE.MODE slide MODEL.INFERENCE.WINDOW "[512, 512]" \\
      MODEL.INFERENCE.STRIDE "[384, 384]"    # with the sliding window in the file
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.usage = "%(prog)s --config-file FILE --format F --output DIR [flags] [KEY VALUE ...]"
    add = parser.add_argument
    add("--config-file", required=True, metavar="FILE", help="config.yaml of a run")
    add("--weights", default="", metavar="FILE", help="default: MODEL.WEIGHTS")
    add("--format", required=True, choices=FORMATS, metavar="F", help=", ".join(FORMATS))
    add("--output", required=True, metavar="DIR", help="for model.onnx, .xml, .pt, .safetensors")
    add("--opset", type=int, metavar="N", help="of ONNX; the lowest that will do is the default")
    add("--float16", action="store_true", help="layers compute in float16, for GPUs")
    add("--int8", default="", metavar="DATASET", help="quantise to INT8 on images of this set")
    add("--max-loss", type=float, default=0.5, metavar="POINTS",
        help="of mIoU, AP or PQ that --int8 may cost (default: %(default)s)")  # fmt: skip
    add("--verify-on", default="", metavar="DATASET",
        help="a validation set on which file and model must have the same metric")  # fmt: skip
    add("opts", nargs="*", metavar="KEY VALUE", help="configuration values")
