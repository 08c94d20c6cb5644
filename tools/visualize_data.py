#!/usr/bin/env python
"""Draw samples of a registered dataset, labels laid over them, as training sees them.

python tools/visualize_data.py --dataset camvid_train --output sheet.png
python tools/visualize_data.py --config-file configs/... --count 24 --output folder/
"""

import argparse
import sys
from pathlib import Path

import seg_plugins
from seg_plugins import SegPluginsError
from seg_plugins.data import Dataset, apply_custom_dataset, build_mapper
from seg_plugins.io.masks import to_bitmask
from seg_plugins.plugins import add_import_argument
from seg_plugins.visualization import overlays

import cv2
import numpy as np
from detectron2.config import CfgNode
from detectron2.structures import Instances, PolygonMasks


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--dataset", help="a registered name or folder:IMAGES,MASKS, as on disk")
    source.add_argument("--custom", help="a YAML file: see datasets/custom.example.yaml")
    source.add_argument("--config-file", help="draw its training set after augmentation")
    add_import_argument(parser)
    parser.add_argument("--output", required=True, help="a picture, or a folder for single ones")
    parser.add_argument("--count", type=int, default=12, help="of samples, spread evenly")
    parser.add_argument("--seed", type=int, default=0, help="of the augmentation")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs for the config")
    args = parser.parse_args()
    output = Path(args.output)
    if output.suffix not in ("", ".png", ".jpg") or args.count < 1 or args.seed < 0:
        parser.error("--output should be a .png, a .jpg or a folder, --count and --seed positive")
    try:
        cfg = _config(args)
        dataset = Dataset.get(cfg.DATASETS.TRAIN[0])
        records = dataset.records
        mapper = build_mapper(cfg, is_train=True)
        chosen = np.linspace(0, len(records) - 1, min(args.count, len(records))).astype(int)
        pictures = [
            draw(mapper(records[i], np.random.default_rng([args.seed, i])), dataset, cfg)
            for i in chosen
        ]
    except (SegPluginsError, ValueError) as error:
        print(f"ERROR {error}", file=sys.stderr)
        return 1
    if output.suffix:
        output.parent.mkdir(parents=True, exist_ok=True)
        pairs = [
            [p for pair in pictures[i : i + 3] for p in pair] for i in range(0, len(pictures), 3)
        ]
        cv2.imwrite(str(output), overlays.grid(pairs, width=240)[:, :, ::-1])
    else:
        output.mkdir(parents=True, exist_ok=True)
        for i, picture in zip(chosen, pictures, strict=True):
            cv2.imwrite(str(output / f"{i:06d}.png"), np.hstack(picture)[:, :, ::-1])
    print(f"{len(pictures)} samples of {dataset.name} in {output}")
    return 0


def _config(args: argparse.Namespace) -> CfgNode:
    if args.config_file:
        cfg = seg_plugins.load_config(args.config_file, args.opts)
    else:
        cfg = seg_plugins.get_cfg()
        cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.RANDOM_FLIP = (0,), "none"
        cfg.INPUT.MASK_FORMAT = "bitmask"
        cfg.DATASETS.TRAIN = (args.dataset,) if args.dataset else ()
        cfg.DATASETS.CUSTOM = args.custom or ""
        cfg.merge_from_list(args.opts)
    apply_custom_dataset(cfg)
    return cfg


def draw(sample: dict, dataset: Dataset, cfg: CfgNode) -> list[np.ndarray]:
    """Image and label of one sample, (H, W, 3) uint8 each, RGB."""
    image = sample["image"].numpy().transpose(1, 2, 0)
    image = overlays.displayable(image[:, :, ::-1] if cfg.INPUT.FORMAT == "BGR" else image)
    drawn = image
    if "sem_seg" in sample:
        colors = np.asarray(dataset.stuff.colors, np.uint8)
        label = sample["sem_seg"].numpy()
        drawn = overlays.semantic(drawn, label, colors, dataset.ignore_label)
    if "instances" in sample:
        found = sample["instances"]
        masks = _bitmasks(found) if found.has("gt_masks") else None
        drawn = overlays.instances(drawn, masks, found.gt_boxes.tensor.numpy())
    return [image, drawn]


def _bitmasks(found: Instances) -> np.ndarray:
    """The masks as (N, H, W) bool."""
    if isinstance(found.gt_masks, PolygonMasks):
        drawn = [to_bitmask(p, *found.image_size) for p in found.gt_masks.polygons]
        return np.array(drawn, bool).reshape(-1, *found.image_size)
    return found.gt_masks.tensor.numpy()


if __name__ == "__main__":
    sys.exit(main())
