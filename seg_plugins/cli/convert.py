"""``seg-plugins convert``: weights of other libraries under the names of one of our models."""

from __future__ import annotations

import argparse

import torch
from detectron2.modeling import build_model

from ..config import ConfigError, load_config
from ..io.errors import SegPluginsError
from ..io.files import write_atomically
from ..io.weights import WeightsError, read_weights
from ..io.weights.conversion import convert
from ..io.weights.fit import next_to_nothing
from ..io.weights.layout import named
from ..io.weights.names import described

EXPECTED = (SegPluginsError, OSError)


def run(args: argparse.Namespace) -> None:
    """List what has no place and what is missing, and write the rest.

    Raises:
        ConfigError: the configuration or the name of the file to write is wrong.
        WeightsError: next to nothing fits.
    """
    opts = [*args.opts, "MODEL.DEVICE", "meta", "MODEL.TIMM.PRETRAINED", False]
    opts += ["MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS", "none"]
    with torch.device("meta"):
        target = build_model(load_config(args.config_file, opts)).state_dict()
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
