"""The command line of ``predict.py``."""

from __future__ import annotations

import argparse

from ..plugins import add_import_argument
from .outputs import KINDS

EXAMPLES = """
examples:
  Nuclei in microscope pictures, with the model that comes with the package:
    %(prog)s --model nuclei --input pictures/ --output results/

  Overlays and id masks of a folder, with the best weights of a run:
    %(prog)s --config-file output/run/config.yaml --weights output/run/model_best.pth \\
        --input photos/ --output results/ --save overlay,mask

  Cut out people and dogs; blur what is behind them in a video:
    %(prog)s ... --input '*.jpg' --output results/ --save cutout --classes person,dog
    %(prog)s ... --input clip.mp4 --output results/ --save blur --classes person

  A GeoTIFF of any size, predicted by windows, with its georeference:
    %(prog)s ... --input scene.tif --output results/ --save mask,overlay
"""


def argument_parser() -> argparse.ArgumentParser:
    """The flags, with the meaning of each spelled out."""
    parser = argparse.ArgumentParser(
        description="Predict images, folders, videos and huge TIFFs with a trained model.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--config-file", metavar="FILE", help="the config.yaml of the training run")
    add(
        "--model",
        default="",
        metavar="NAME",
        help="instead of these two: a trained model of seg_plugins.zoo, e.g. nuclei",
    )
    add_import_argument(parser)
    add("--weights", default="", metavar="FILE", help="trained weights (default: MODEL.WEIGHTS)")
    add(
        "--input",
        required=True,
        nargs="+",
        metavar="PATH",
        help="images, videos, folders (searched to any depth), patterns",
    )
    add(
        "--pages",
        default="",
        metavar="LIST",
        help="of stacks and animations: all, or numbers from 0 and ranges, 0,3-5",
    )
    add("--output", required=True, metavar="DIR", help="results; a second run continues the first")
    add(
        "--save",
        default="overlay",
        metavar="KINDS",
        help=f"separated by commas: {', '.join(KINDS)} (default: overlay)",
    )
    add(
        "--classes",
        default="",
        metavar="NAMES",
        help="what cutout and blur keep, separated by commas (default: everything but the "
        "background, or but the largest class that is no thing)",
    )
    add("--min-score", type=float, default=0.5, metavar="P", help="of instances (default: 0.5)")
    add("--batch-size", type=int, default=4, metavar="N", help="images at once (default: 4)")
    add("--device", default="", help="cpu, cuda, ... (default: the configuration's if there)")
    add("--edge", type=int, metavar="N", help="reach of soft edges in pixels (default: by size)")
    add(
        "--blur-strength",
        type=float,
        default=0.03,
        metavar="F",
        help="radius as a fraction of the shorter side (default: 0.03)",
    )
    add(
        "--window",
        type=int,
        metavar="N",
        help="predict every TIFF by windows of N pixels (default: those of more than 50 million "
        "pixels, by windows of 1024)",
    )
    add("--overlap", type=int, metavar="N", help="of windows (default: a quarter of them)")
    add("--margin", type=int, metavar="N", help="not used at borders (default: a 16th)")
    add(
        "--smooth",
        type=float,
        default=0.0,
        metavar="S",
        help="share of the past in each frame of a video, 0 to below 1 (default: 0)",
    )
    add(
        "--opts",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="KEY VALUE",
        help="configuration values that override the file, at the end",
    )
    return parser
