#!/usr/bin/env python
"""Write weights of other libraries under the names of one of our models.

    python tools/convert_weights.py --config-file configs/voc/fcn32s_vgg16.yaml \\
        vgg16-397923af.pth vgg16_fcn.pth

MODEL.WEIGHTS takes such files itself, and converts them in the same way; this command lists every
name, and writes what Detectron2's own checkpointer loads as well. Libraries: torchvision, timm,
segmentation_models.pytorch, mmdetection and mmsegmentation (backbones, and the regions of Mask
R-CNN), efficientnet_pytorch and the Caffe releases. Input: .pth, .safetensors, .pkl (arrays only)
or .npz with an array per parameter (conv1_1.weight, conv1_1.bias, ...), which is how Caffe models
are best exported.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import seg_plugins
from seg_plugins import SegPluginsError
from seg_plugins.config import ConfigError
from seg_plugins.io.files import write_atomically
from seg_plugins.io.weights import WeightsError, read_weights
from seg_plugins.io.weights.conversion import convert
from seg_plugins.io.weights.fit import next_to_nothing
from seg_plugins.io.weights.layout import named
from seg_plugins.io.weights.names import described
from seg_plugins.plugins import add_import_argument

import torch
from detectron2.modeling import build_model


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, help="the model the weights are for")
    add_import_argument(parser)
    parser.add_argument("--from-bgr", action="store_true", help="the source takes BGR images")
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs")
    args = parser.parse_args()
    opts = [*args.opts, "MODEL.DEVICE", "meta", "MODEL.TIMM.PRETRAINED", False]
    opts += ["MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS", "none"]
    with torch.device("meta"):
        target = build_model(seg_plugins.load_config(args.config_file, opts)).state_dict()
    if args.output.suffix not in (".pth", ".pt"):
        raise ConfigError(f"{args.output}: the file is written by torch.save; call it .pth")
    source = read_weights(args.input).tensors
    result = convert(source, target, from_bgr=args.from_bgr)
    for title, names in (
        ("no place in the model", result.unused),
        ("other size", result.misfits),
        ("not given, left as initialised", result.missing),
    ):
        if names:
            print(f"{len(names)} tensors, {title}: {', '.join(names)}")
    if next_to_nothing(len(result.weights), source, target):
        raise WeightsError(
            f"{args.input}: {len(result.weights)} of its {len(source)} tensors have a place in the "
            f"model, which has {len(target)}; nothing was written. It looks like "
            f"{described(source) or 'no known library'}, with {named(source)}."
        )
    content = {"model": result.weights, "matching_heuristics": False}
    write_atomically(args.output, lambda file: torch.save(content, file))
    print(f"{len(result.weights)} of the model's {len(target)} tensors written to {args.output}")


if __name__ == "__main__":
    try:
        main()
    except (SegPluginsError, OSError) as error:
        sys.exit(f"error: {error}")
