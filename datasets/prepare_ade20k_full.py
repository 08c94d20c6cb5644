#!/usr/bin/env python
"""Turn the full ADE20K (2021-01-17) into labels and a dataset description for DATASETS.CUSTOM.

    python datasets/prepare_ade20k_full.py datasets/ADE20K_2021_17_01 [--min-images 1]

Reads, below images/ADE/{training,validation}, NAME.json (objects with their name and its number)
and NAME_seg.png (the number is R // 10 * 256 + G). Writes NAME_ids.png beside them, 16 bits with
65535 where there is no class, the lists train.txt and val.txt, and ade20k_full.yaml.

The classes are those that stand in at least --min-images images of both splits, in the order of
their numbers; parts of objects are no classes. They come from the files, not from a list of ours:
compare their number with that of the results you compare with (847 in MaskFormer's benchmark).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

from seg_plugins.data import DatasetError
from seg_plugins.io.images import read_label

import cv2
import numpy as np
import yaml

SPLITS = {"train": "training", "val": "validation"}
IGNORED = 65535


def read_objects(path: Path) -> dict[int, str]:
    """Number -> name of the objects in an image, without parts."""
    try:
        # Some names are not UTF-8.
        objects = json.loads(path.read_text(encoding="latin-1"))["annotation"]["object"]
        whole = [o for o in objects if int(o["parts"]["part_level"]) == 0]
        return {int(o["name_ndx"]): str(o["name"]) for o in whole}
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(f"{path}: not an annotation of ADE20K ({type(error).__name__}: {error})")


def read_numbers(path: Path) -> np.ndarray:
    """(H, W) numbers of the names; 0 where nothing is annotated."""
    try:
        red, green, _ = np.moveaxis(read_label(str(path), color=True).astype(np.uint16), 2, 0)
    except DatasetError as error:
        sys.exit(str(error))
    return red // 10 * 256 + green


def unique_names(numbers: list[int], names: dict[int, str]) -> list[str]:
    """A name for each number; one that stands for several numbers gets its number."""
    counts = Counter(names[n] for n in numbers)
    return [names[n] if counts[names[n]] == 1 else f"{names[n]} ({n})" for n in numbers]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path, help="the dataset's folder")
    parser.add_argument("--min-images", type=int, default=1)
    args = parser.parse_args()
    images = args.root / "images/ADE"

    names: dict[int, str] = {}
    found: dict[str, list[Path]] = {}
    counts: dict[str, Counter[int]] = {}
    for split, folder in SPLITS.items():
        found[split] = sorted((images / folder).rglob("*.json"))
        if not found[split]:
            parser.error(f"{images / folder}: no annotations (*.json)")
        counts[split] = Counter()
        for path in found[split]:
            objects = read_objects(path)
            names.update(objects)
            counts[split].update(objects.keys())
    numbers = sorted(n for n in names if all(c[n] >= args.min_images for c in counts.values()))
    lut = np.full(65536, IGNORED, np.uint16)
    lut[numbers] = np.arange(len(numbers))
    lut[0] = IGNORED

    pixels = np.zeros(2, np.int64)  # all, and those without a class
    for split, paths in found.items():
        for path in paths:
            ids = lut[read_numbers(path.with_name(f"{path.stem}_seg.png"))]
            pixels += np.array([ids.size, (ids == IGNORED).sum()])
            target = path.with_name(f"{path.stem}_ids.png")
            if not cv2.imwrite(str(target), ids):
                sys.exit(f"{target} could not be written")
        stems = [path.relative_to(images).with_suffix("").as_posix() for path in paths]
        (args.root / f"{split}.txt").write_text("\n".join(stems) + "\n", encoding="utf-8")
    description = {
        "name": "ade20k_full",
        "task": "semantic",
        "classes": unique_names(numbers, names),
        "ignore_label": IGNORED,
        "images": "images/ADE",
        "masks": "images/ADE",
        "image_suffix": ".jpg",
        "mask_suffix": "_ids.png",
        "train": "train.txt",
        "val": "val.txt",
    }
    target = args.root / "ade20k_full.yaml"
    target.write_text(yaml.safe_dump(description, sort_keys=False), encoding="utf-8")
    total = sum(map(len, found.values()))
    left_out = 100 * pixels[1] / max(pixels[0], 1)
    print(f"{total} labels with {len(numbers)} classes, {left_out:.1f}% of the pixels have none")
    print(f"train with DATASETS.CUSTOM {target}")


if __name__ == "__main__":
    main()
