#!/usr/bin/env python
"""Write weights of torchvision, timm or Caffe releases under the names of one of our models.

    python tools/convert_weights.py --config-file configs/voc/fcn32s_vgg16.yaml \\
        vgg16-397923af.pth vgg16_fcn.pth

Then train with MODEL.WEIGHTS vgg16_fcn.pth. Input: .pth, .safetensors, .pkl (arrays only) or
.npz with an array per parameter (conv1_1.weight, conv1_1.bias, ...), which is how Caffe models
are best exported.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import seg_plugins
from seg_plugins.config import ConfigError
from seg_plugins.engine.safe_load import UnsafeFileError, load_pickle, load_torch
from seg_plugins.modeling.weight_conversion import convert

import numpy as np
import torch
from detectron2.modeling import build_model
from safetensors.torch import load_file


def read(path: Path) -> dict[str, torch.Tensor]:
    """A state dict; nothing in the file is executed."""
    if path.suffix == ".safetensors":
        return load_file(path)
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            return {name: torch.from_numpy(np.asarray(file[name])) for name in file.files}
    if path.suffix == ".pkl":
        content: Any = load_pickle(path)
        content = content.get("model", content.get("blobs", content))
        arrays = {name: v for name, v in content.items() if isinstance(v, np.ndarray)}
        return {name: torch.from_numpy(value) for name, value in arrays.items()}
    if path.suffix in (".pth", ".pt"):
        content = load_torch(path)
        for key in ("model", "state_dict"):
            content = content.get(key, content)
        return {name: value for name, value in content.items() if torch.is_tensor(value)}
    raise ConfigError(f"{path}: use .pth, .safetensors, .npz or .pkl")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, help="the model the weights are for")
    parser.add_argument("--from-bgr", action="store_true", help="the source takes BGR images")
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs")
    args = parser.parse_args()
    opts = ["MODEL.DEVICE", "meta", "MODEL.TIMM.PRETRAINED", False, *args.opts]
    opts += ["MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS", "none"]
    with torch.device("meta"):
        target = build_model(seg_plugins.load_config(args.config_file, opts)).state_dict()
    result = convert(read(args.input), target, from_bgr=args.from_bgr)
    for title, names in (
        ("no place in the model", result.unused),
        ("other size", result.misfits),
        ("not given, left as initialised", result.missing),
    ):
        if names:
            print(f"{title}: {', '.join(names)}")
    if not result.weights:
        raise ConfigError(f"{args.input}: no name in it is known; nothing was written")
    torch.save({"model": result.weights, "matching_heuristics": False}, args.output)
    print(f"{len(result.weights)} tensors written to {args.output}")


if __name__ == "__main__":
    try:
        main()
    except (ConfigError, UnsafeFileError, OSError) as error:
        sys.exit(f"error: {error}")
