"""Flags of ``seg-plugins analyze``."""

from __future__ import annotations

import argparse

ABOUT = """
They are counted part by part, for one image. RoI heads compute as many regions as
an image can have at test: MODEL.RPN.POST_NMS_TOPK_TEST boxes,
TEST.DETECTIONS_PER_IMAGE masks. Published figures stand beside the counts where
the papers give them."""
EXAMPLES = """
  %(prog)s --config-file configs/voc/fcn8s_vgg16.yaml --size 500 500
  %(prog)s --config-file configs/coco/mask_rcnn_r50_fpn_1x.yaml
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    add = parser.add_argument
    add("--config-file", required=True, metavar="FILE", help="a file, or a shipped one's name")
    add(
        "--size",
        type=int,
        nargs=2,
        metavar=("H", "W"),
        help="of the image (default: INPUT.MIN_SIZE_TEST squared, 512 squared where that is 0)",
    )
    add("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="configuration values")
