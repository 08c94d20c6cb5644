#!/usr/bin/env python
"""Turn the CT volumes of LiTS into slices.

    python datasets/prepare_lits.py LITS_FOLDER datasets/lits [--slab 1]

Needs nibabel: pip install "seg_plugins[medical]". Reads volume-N.nii and segmentation-N.nii (or
.nii.gz, in any subfolder). Writes
slices/{train,val}/volume-N_ZZZZ.npy, (H, W, slab) int16 Hounsfield units, and
labels/{train,val}/volume-N_ZZZZ.png with 0 background, 1 liver, 2 tumour. Volumes 105 to 130 are
for validation. A slab of 3 holds the slices below and above as further channels.
Set INPUT.VALUE_RANGE to the window, e.g. [-200, 250], and INPUT.FORMAT to raw.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from seg_plugins.data import DatasetError
from seg_plugins.io.nifti import read_nifti

import cv2
import numpy as np

FIRST_VALIDATION_VOLUME = 105
LABELS = [0, 1, 2]


def check_values(path: Path, values: np.ndarray, label_path: Path, labels: np.ndarray) -> None:
    """Stop where a value would change in the files that are written."""
    wrong = ~np.isin(labels, LABELS)
    if wrong.any():
        found = np.unique(labels[wrong])[:5].tolist()
        sys.exit(f"{label_path}: {wrong.sum()} voxels hold {found}, which are none of {LABELS}")
    wrong = ~(np.abs(values) <= np.iinfo(np.int16).max)
    if wrong.any():
        sys.exit(f"{path}: {wrong.sum()} voxels are NaN or do not fit 16 bits")


def write(path: Path, label: np.ndarray) -> None:
    if not cv2.imwrite(str(path), label):
        sys.exit(f"{path} could not be written")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--slab", type=int, default=1, help="neighbouring slices per image, odd")
    args = parser.parse_args()
    volumes = sorted(args.source.rglob("volume-*.nii*"))
    if not volumes or args.slab % 2 == 0:
        parser.error(f"no volume-*.nii in {args.source}, or an even slab")
    names = [path.name.split(".")[0] for path in volumes]
    for name in names:
        if names.count(name) > 1:
            parser.error(f"{name} stands twice below {args.source}")
    for path in volumes:
        name = path.name.split(".")[0]
        number = int(name.split("-")[1])
        split = "val" if number >= FIRST_VALIDATION_VOLUME else "train"
        found = sorted(args.source.rglob(f"segmentation-{number}.nii*"))
        if not found:
            sys.exit(f"{path}: there is no segmentation-{number}.nii")
        try:
            values, labels = read_nifti(path), read_nifti(found[0])
        except DatasetError as error:
            sys.exit(str(error))
        if values.shape != labels.shape:
            sys.exit(f"{path}: {values.shape}, its segmentation {labels.shape}")
        check_values(path, values, found[0], labels)
        for kind in ("slices", "labels"):
            (args.target / kind / split).mkdir(parents=True, exist_ok=True)
        reach = args.slab // 2
        padded = np.pad(np.rint(values).astype(np.int16), ((reach, reach), (0, 0), (0, 0)), "edge")
        for z in range(len(values)):
            slab = np.ascontiguousarray(padded[z : z + args.slab].transpose(1, 2, 0))
            np.save(args.target / "slices" / split / f"{name}_{z:04d}.npy", slab)
            png = args.target / "labels" / split / f"{name}_{z:04d}.png"
            write(png, labels[z].astype(np.uint8))
        print(f"{name}: {len(values)} slices")


if __name__ == "__main__":
    main()
