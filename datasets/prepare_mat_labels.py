#!/usr/bin/env python
"""Turn label images that are published as MATLAB files into PNGs.

    python datasets/prepare_mat_labels.py ccp datasets/clothing-co-parsing
    python datasets/prepare_mat_labels.py sift_flow datasets/SiftFlowDataset
    python datasets/prepare_mat_labels.py pascal_context datasets/VOCdevkit/VOC2010
    python datasets/prepare_mat_labels.py barcelona datasets/Barcelona
    python datasets/prepare_mat_labels.py sbd datasets/VOCdevkit/VOC2012 --sbd benchmark_RELEASE

Needs scipy. Files that exist already are not written again. What is read and written:

- ccp: annotations/pixel-level/*.mat (groundtruth) -> labels_png/
- sift_flow: SemanticLabels/spatial_envelope_256x256_static_8outdoorcategories/*.mat (S) ->
  SemanticLabelsPNG/ with the same subfolders as Images/
- pascal_context: trainval/*.mat (LabelMap, 459 classes) and labels.txt -> SegmentationClassContext/
  with 0 = any other class and 1-59 the classes of the benchmark
- barcelona (unverified layout): SemanticLabels/**/*.mat (S and the class names of its ids,
  names), TestSet1.txt with the test images -> SemanticLabelsPNG/ with the same subfolders as
  Images/, train.txt, val.txt (the test images) and barcelona.yaml for DATASETS.CUSTOM
- sbd: dataset/cls/*.mat (GTcls.Segmentation) and VOC's own labels -> SegmentationClassAug/ and
  ImageSets/Segmentation/trainaug.txt, VOC's validation images left out
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import yaml

TABLES = Path(__file__).resolve().parent.parent / "seg_plugins/data/datasets/class_tables"


def load(path: Path, variable: str) -> np.ndarray:
    from scipy.io import loadmat

    try:
        return np.asarray(loadmat(path)[variable])
    except (OSError, KeyError, ValueError, TypeError, NotImplementedError) as error:
        sys.exit(f"{path}: no MATLAB file with '{variable}' ({error!r})")


def write(path: Path, label: np.ndarray) -> None:
    if not (label.min() >= 0 and label.max() <= 255):
        sys.exit(f"{path}: ids {label.min()} to {label.max()} do not fit 8 bits")
    if not np.array_equal(label, label.astype(np.uint8)):
        sys.exit(f"{path}: its ids have fractions")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), label.astype(np.uint8)):
        sys.exit(f"{path} could not be written")


def convert_all(source: Path, target: Path, read) -> int:
    """Convert every .mat below `source` that has no PNG yet; returns how many there are."""
    paths = sorted(source.rglob("*.mat"))
    if not paths:
        sys.exit(f"{source}: no .mat files")
    for path in paths:
        png = target / path.relative_to(source).with_suffix(".png")
        if not png.exists():
            write(png, read(path))
    return len(paths)


def ccp(root: Path) -> int:
    return convert_all(
        root / "annotations/pixel-level", root / "labels_png", lambda p: load(p, "groundtruth")
    )


def sift_flow(root: Path) -> int:
    folder = "spatial_envelope_256x256_static_8outdoorcategories"
    return convert_all(
        root / "SemanticLabels" / folder,
        root / "SemanticLabelsPNG" / folder,
        lambda p: load(p, "S"),
    )


def pascal_context(root: Path) -> int:
    table = json.loads((TABLES / "pascal_context_59.json").read_text())
    wanted = {c["name"]: c["label_value"] for c in table["classes"]}
    lut = np.zeros(1024, np.uint8)
    for line in (root / "labels.txt").read_text().splitlines():
        number, _, name = line.partition(":")
        if number.strip().isdigit():
            lut[int(number)] = wanted.pop(name.strip(), 0)
    if wanted:
        sys.exit(f"{root / 'labels.txt'} lacks the classes {sorted(wanted)}")
    return convert_all(
        root / "trainval", root / "SegmentationClassContext", lambda p: lut[load(p, "LabelMap")]
    )


def barcelona(root: Path) -> int:
    labels = sorted((root / "SemanticLabels").rglob("*.mat"))
    if not labels:
        sys.exit(f"{root / 'SemanticLabels'}: no .mat files")
    names: list[str] = []
    for path in labels:  # the classes are told by the files alone: they have to agree
        here = [str(np.squeeze(name)) for name in load(path, "names").ravel()]
        if names and here != names:
            sys.exit(f"{path}: its class names are not those of {labels[0]}")
        names = here

    def ids(path: Path) -> np.ndarray:
        label = load(path, "S")
        if label.max() > len(names):
            sys.exit(f"{path}: id {label.max()}, but there are {len(names)} names")
        return label

    count = convert_all(root / "SemanticLabels", root / "SemanticLabelsPNG", ids)
    lines = (root / "TestSet1.txt").read_text().replace("\\", "/").split("\n")
    tested = {Path(line.strip()).with_suffix("").as_posix() for line in lines if line.strip()}
    stems = [p.relative_to(root / "SemanticLabels").with_suffix("").as_posix() for p in labels]
    if not tested <= set(stems):
        sys.exit(f"{root / 'TestSet1.txt'}: no labels of {sorted(tested - set(stems))[0]}")
    for split, chosen in {"train": set(stems) - tested, "val": tested}.items():
        (root / f"{split}.txt").write_text("\n".join(sorted(chosen)) + "\n")
    description = {
        "name": "barcelona",
        "task": "semantic",
        "classes": [{"name": name, "value": i} for i, name in enumerate(names, 1)],
        "unlisted": "ignore",  # 0 is unlabelled
        "images": "Images",
        "masks": "SemanticLabelsPNG",
        "train": "train.txt",
        "val": "val.txt",
    }
    (root / "barcelona.yaml").write_text(yaml.safe_dump(description, sort_keys=False))
    return count


def sbd(root: Path, source: Path) -> int:
    def segmentation(path: Path) -> np.ndarray:
        return load(path, "GTcls")["Segmentation"][0, 0]

    lists = root / "ImageSets/Segmentation"
    voc = {split: (lists / f"{split}.txt").read_text().split() for split in ("train", "val")}
    target = root / "SegmentationClassAug"
    target.mkdir(exist_ok=True)
    for stem in voc["train"] + voc["val"]:  # VOC's labels are finer than SBD's
        if not (target / f"{stem}.png").exists():
            shutil.copyfile(root / f"SegmentationClass/{stem}.png", target / f"{stem}.png")
    convert_all(source / "dataset/cls", target, segmentation)
    stems = {p.stem for p in (source / "dataset/cls").glob("*.mat")} | set(voc["train"])
    chosen = sorted(stems - set(voc["val"]))
    (lists / "trainaug.txt").write_text("\n".join(chosen) + "\n")
    return len(chosen)


CONVERTERS = {
    "ccp": ccp,
    "sift_flow": sift_flow,
    "pascal_context": pascal_context,
    "barcelona": barcelona,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", choices=(*CONVERTERS, "sbd"))
    parser.add_argument("root", type=Path, help="the dataset's folder")
    parser.add_argument("--sbd", type=Path, help="SBD's folder, for sbd")
    args = parser.parse_args()
    if args.dataset == "sbd" and args.sbd is None:
        parser.error("sbd needs --sbd, the folder that holds dataset/cls")
    if args.dataset == "sbd":
        count = sbd(args.root, args.sbd)
    else:
        count = CONVERTERS[args.dataset](args.root)
    print(f"{args.dataset}: {count} labels below {args.root}")


if __name__ == "__main__":
    main()
