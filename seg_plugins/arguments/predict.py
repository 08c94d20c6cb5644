"""Flags of ``seg-plugins predict``."""

from __future__ import annotations

import argparse

# Of --save; `seg_plugins.prediction.outputs.KINDS`, which a test compares.
KINDS = (
    "overlay",
    "mask",
    "color",
    "cutout",
    "blur",
    "json",
    "panoptic",
    "objects",
    "geojson",
    "labelme",
    "measures",
)

# `seg_plugins.runtime.RUNTIMES` and PRECISIONS, which a test compares.
RUNTIMES = ("torch", "onnx", "openvino")
PRECISIONS = ("float32", "bfloat16")

EXAMPLES = """
  %(prog)s --model nuclei --input pictures/ --output results/
  %(prog)s --config-file output/run/config.yaml --weights output/run/model_best.pth \\
      --input photos/ clip.mp4 --output results/ --save overlay,mask,cutout
  %(prog)s --model exported/model.onnx --runtime openvino --input photos/ --output results/
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.usage = (
        "%(prog)s (--config-file FILE [--weights FILE] | --model NAME|FILE)\n"
        "         --input PATH [PATH ...] --output DIR [flags]"
    )
    add = parser.add_argument
    add("--config-file", metavar="FILE", help="config.yaml of the training run")
    add("--weights", default="", metavar="FILE", help="trained weights (default: MODEL.WEIGHTS)")
    add(
        "--model",
        default="",
        metavar="NAME|FILE",
        help="of the zoo, e.g. nuclei; or an exported .onnx, .xml",
    )
    add(
        "--runtime",
        default="",
        choices=RUNTIMES,
        metavar="NAME",
        help="torch, onnx, openvino (default: by the model's file)",
    )
    add(
        "--precision",
        default="float32",
        choices=PRECISIONS,
        metavar="P",
        help="float32, bfloat16 (faster, not on onnx)",
    )
    add(
        "--threads",
        type=int,
        default=0,
        metavar="N",
        help="of the network (default: all there are)",
    )
    add(
        "--input",
        required=True,
        nargs="+",
        metavar="PATH",
        help="images, videos, GeoTIFFs, folders, patterns",
    )
    add(
        "--pages",
        default="",
        metavar="LIST",
        help="of stacks and animations: all, or from 0: 0,3-5",
    )
    add("--output", required=True, metavar="DIR", help="results; a second run continues the first")
    add(
        "--save",
        default="overlay",
        metavar="KINDS",
        help=f"{', '.join(KINDS)} (default: overlay)",
    )
    add(
        "--classes",
        default="",
        metavar="NAMES",
        help="what cutout and blur keep: person,dog (default: all but the background or largest)",
    )
    add("--min-score", type=float, default=0.5, metavar="P", help="of instances (default: 0.5)")
    add("--batch-size", type=int, default=4, metavar="N", help="images at once (default: 4)")
    add("--device", default="", help="cpu, cuda (default: the configuration's)")
    add("--edge", type=int, metavar="N", help="pixels of soft edges (default: by size)")
    add(
        "--blur-strength",
        type=float,
        default=0.03,
        metavar="F",
        help="radius by the shorter side (default: 0.03)",
    )
    add(
        "--window",
        type=int,
        metavar="N",
        help="pixels of windows over TIFFs (default: 1024, where huge)",
    )
    add("--overlap", type=int, metavar="N", help="of windows (default: a quarter of them)")
    add("--margin", type=int, metavar="N", help="not used at borders (default: a 16th)")
    add(
        "--smooth",
        type=float,
        default=0.0,
        metavar="S",
        help="of the past in a video, 0 to 1 (default: 0)",
    )
    add(
        "--opts",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="KEY VALUE",
        help="configuration values, at the end",
    )
