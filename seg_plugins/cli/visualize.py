"""``seg-plugins visualize``: samples of a dataset, labels laid over them, as training sees them."""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from detectron2.config import CfgNode
from detectron2.structures import Instances, PolygonMasks

from ..config import Origin, get_cfg, load_config
from ..config.loading import merge_opts
from ..data import Dataset, apply_custom_dataset, build_mapper
from ..engine.own_data import fit_to_data
from ..io.errors import SegPluginsError
from ..io.masks import to_bitmask
from ..visualization import overlays

EXPECTED = (SegPluginsError, ValueError)


def run(args: argparse.Namespace) -> None:
    """Draw the samples.

    Raises:
        SegPluginsError: the dataset or the configuration is not known or not readable.
    """
    output = Path(args.output)
    cfg = _config(args)
    dataset = Dataset.get(cfg.DATASETS.TRAIN[0])
    records = dataset.records
    mapper = build_mapper(cfg, is_train=True)
    chosen = np.linspace(0, len(records) - 1, min(args.count, len(records))).astype(int)
    pictures = [
        draw(mapper(records[i], np.random.default_rng([args.seed, i])), dataset, cfg)
        for i in chosen
    ]
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


def _config(args: argparse.Namespace) -> CfgNode:
    if args.config_file:
        cfg = load_config(args.config_file, args.opts)
    else:
        cfg = get_cfg()
        cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.RANDOM_FLIP = (0,), "none"
        cfg.INPUT.MASK_FORMAT = "bitmask"
        cfg.DATASETS.TRAIN = (args.dataset,) if args.dataset else ()
        cfg.DATASETS.CUSTOM = args.custom or ""
        merge_opts(cfg, args.opts)
    apply_custom_dataset(cfg)
    if cfg.INPUT.FIT_TO_DATA:
        fit_to_data(cfg, Origin(args.config_file, args.opts))
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
