"""``seg-plugins analyze``: parameters, multiply-adds and activation memory, part by part."""

from __future__ import annotations

import argparse

from ..config import load_config
from ..io.errors import SegPluginsError
from ..modeling.analysis import analyze, recomputation, size_at_test

EXPECTED = (SegPluginsError,)

# Configuration -> what the paper, or its layer table, says.
PUBLISHED = {
    "voc/fcn32s_vgg16.yaml": "136,152,917 parameters (layer table)",
    "voc/fcn16s_vgg16.yaml": "134,815,994 parameters (layer table)",
    "voc/fcn8s_vgg16.yaml": "134,489,759 parameters (layer table)",
    "isbi2012/unet_valid.yaml": "31,030,658 parameters (layer table)",
    "camvid/segnet_vgg16.yaml": "29,449,355 parameters (layer table)",
    "camvid/segnet_basic.yaml": "1.425 M parameters (printed); 1,416,587 (layer table)",
    "voc/deeplabv3plus_x65.yaml": "89.76 B multiply-adds at 513 x 513 (paper)",
    "voc/deeplabv3plus_x65_separable.yaml": "54.17 B multiply-adds at 513 x 513 (paper)",
}


def run(args: argparse.Namespace) -> None:
    """Print the table; errors as of :func:`seg_plugins.modeling.analysis.analyze`."""
    cfg = load_config(args.config_file, args.opts)
    height, width = args.size or size_at_test(cfg)
    rows = analyze(cfg, height, width)
    print(f"one image of {height} x {width}")
    print(f"{'part':<20}{'regions':>8}{'parameters':>14}{'multiply-adds':>18}{'activations':>14}")
    for row in rows:
        print(
            f"{row.name:<20}{row.regions or '':>8}{row.parameters:>14,}"
            f"{row.multiply_adds / 1e9:>15.2f} B{row.activation_bytes / 2**20:>10.1f} MiB"
        )
    for name, figure in PUBLISHED.items():
        if args.config_file.endswith(name):
            print(f"published: {figure}")
    if cfg.MODEL.META_ARCHITECTURE == "PatchClassifier":
        counts = recomputation(cfg, height, width)
        print(
            f"evaluation: naive {counts.naive / 1e9:,.1f} B, dense {counts.dense / 1e9:,.1f} B "
            f"multiply-adds: {counts.naive / counts.dense:,.0f} times fewer"
        )
