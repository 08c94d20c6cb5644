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
    "geopackage",
    "labelme",
    "measures",
)

# `seg_plugins.runtime.RUNTIMES` and PRECISIONS, which a test compares.
RUNTIMES = ("torch", "onnx", "openvino")
PRECISIONS = ("float32", "bfloat16")

EXAMPLES = """
  %(prog)s --model nuclei --input pictures/ --output results/
  %(prog)s --config-file run/config.yaml --input a.mp4 --output out
  %(prog)s --model model.onnx --input in/ --output out/ --save mask
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.usage = (
        "%(prog)s (--config-file FILE [--weights FILE] |\n"
        "         --model NAME|FILE) --input IN [IN ...] --output DIR [flags]"
    )
    add = parser.add_argument
    add("--config-file", metavar="FILE", help="config.yaml of the training run")
    add("--weights", default="", metavar="FILE", help="trained weights (default: MODEL.WEIGHTS)")
    add(
        "--model",
        default="",
        metavar="NAME|FILE",
        help="of the zoo (nuclei), or exported (.onnx, .xml)",
    )
    add(
        "--runtime",
        default="",
        choices=RUNTIMES,
        metavar="NAME",
        help=f"{', '.join(RUNTIMES)} (default: by the file)",
    )
    add(
        "--precision",
        default="float32",
        choices=PRECISIONS,
        metavar="TYPE",
        help="float32, bfloat16 (not of onnx)",
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
        metavar="IN",  # short: a line of the screen
        help="images, videos, GeoTIFFs, folders, patterns",
    )
    add("--pages", default="", metavar="LIST", help="of stacks, volumes: all, or from 0: 0,3-5")
    add("--output", required=True, metavar="DIR", help="results; a second run continues the first")
    add(
        "--save",
        default="overlay",
        metavar="KINDS",
        help=f"{KINDS[0]} (default), {', '.join(KINDS[1:])}",
    )
    add(
        "--classes",
        default="",
        metavar="NAMES",
        help="kept by cutout and blur (default: no background)",
    )
    add(
        "--label-files",
        choices=("png", "tif"),
        default="png",
        metavar="TYPE",
        help="of mask and objects: png, tif (default: png)",
    )
    add(
        "--mask-values",
        choices=("class", "dataset", "255"),
        default="class",
        metavar="IDS",
        help="class, dataset or 255: 0 and 255 (default: class)",
    )
    add(
        "--instances",
        choices=("components",),
        metavar="HOW",
        help="components: json has the pieces of each class",
    )
    add("--clear", metavar="NAMES", help="not drawn in overlays (default: background)")
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
        help="pixels of windows (default: 1024, of large TIFFs)",
    )
    add("--overlap", type=int, metavar="N", help="of windows (default: a quarter of them)")
    add("--margin", type=int, metavar="N", help="not used at borders (default: a 16th)")
    add(
        "--smooth",
        type=float,
        default=0.0,
        metavar="S",
        help="share of the past in a video, 0 to 1 (default: 0)",
    )
    add(
        "--opts",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="KEY VALUE",
        help="configuration values, at the end",
    )
