#!/usr/bin/env python
"""Parameters, multiply-adds and activation memory of a system, part by part, for one image.

    python tools/analyze_model.py --config-file configs/voc/fcn8s_vgg16.yaml --size 500 500
    python tools/analyze_model.py --config-file configs/coco/mask_rcnn_r50_fpn_1x.yaml

The size is INPUT.MIN_SIZE_TEST squared unless said, 512 squared where that is 0. RoI heads compute
as many regions as an image can have at test: MODEL.RPN.POST_NMS_TOPK_TEST boxes,
TEST.DETECTIONS_PER_IMAGE masks. Published figures stand beside the counts where the papers give
them.
"""

from __future__ import annotations

import argparse
import sys

import seg_plugins
from seg_plugins import SegPluginsError
from seg_plugins.modeling.analysis import analyze, recomputation, size_at_test
from seg_plugins.plugins import add_import_argument

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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, help="a file, or a shipped one's name")
    add_import_argument(parser)
    parser.add_argument("--size", type=int, nargs=2, metavar=("H", "W"))
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs")
    args = parser.parse_args()
    cfg = seg_plugins.load_config(args.config_file, args.opts)
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


if __name__ == "__main__":
    try:
        main()
    except SegPluginsError as error:
        sys.exit(f"error: {error}")
