"""Flags of ``seg-plugins convert``."""

from __future__ import annotations

import argparse
from pathlib import Path

ABOUT = """
MODEL.WEIGHTS takes such files itself, and converts them in the same way; this
command lists every name, and writes what Detectron2's own checkpointer loads.
Libraries: torchvision, timm, segmentation_models.pytorch, mmdetection and
mmsegmentation (backbones, and the regions of Mask R-CNN), efficientnet_pytorch and
the Caffe releases. Input: .pth, .safetensors, .pkl (arrays only), or .npz with an
array for each parameter (conv1_1.weight, conv1_1.bias), as Caffe's are exported."""
EXAMPLES = """
  %(prog)s --config-file configs/voc/fcn32s_vgg16.yaml \\
      vgg16-397923af.pth vgg16_fcn.pth
  %(prog)s --config-file configs/voc/fcn8s_vgg16.yaml --from-bgr \\
      caffe.npz fcn8s.pth MODEL.SEM_SEG_HEAD.NUM_CLASSES 3
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    add = parser.add_argument
    add("--config-file", required=True, metavar="FILE", help="the model the weights are for")
    add("--from-bgr", action="store_true", help="the source takes BGR images")
    add("input", type=Path, help="file of another library")
    add("output", type=Path, help="file to write, .pth")
    add("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="configuration values")
