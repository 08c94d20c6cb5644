#!/usr/bin/env python
"""Write the true masks of a dataset down as one-stage systems do, read them back, and compare.

python tools/round_trips.py [--dataset shapes_instance_val] [--images 30]

Prints, for each way of writing a mask and each class, the mean IoU with the truth, and the ceiling:
the mean share of the IoUs above 0.50, 0.55, ... 0.95, which is what AP could reach at most. No
network is involved.
"""

from __future__ import annotations

import argparse
import itertools
from collections import defaultdict
from collections.abc import Callable

from seg_plugins.data import Dataset
from seg_plugins.modeling.instance_representations import DenseMasks, OutlineMasks, Truth
from seg_plugins.modeling.instance_representations.mask_forms import MaskForm
from seg_plugins.modeling.instance_representations.polar import outlines, rays_of
from seg_plugins.visualization.overlays import annotation_masks

import numpy as np
import run_matrix
import torch
from detectron2.structures import BitMasks, Instances

THRESHOLDS = torch.arange(0.5, 1.0, 0.05)


def on_grid(stride: int) -> Callable[[Truth], MaskForm]:
    """As bitmaps of cells: SOLO, SOLOv2, CondInst, YOLACT, AdaptIS."""

    def form(truth: Truth) -> MaskForm:
        height, width = (-(-side // 32) * 32 for side in truth.image_size)
        return DenseMasks(truth.masks_at(stride, (height, width)), stride)

    return form


def as_rays(count: int) -> Callable[[Truth], MaskForm]:
    """As rays from the centre of mass: PolarMask."""

    def form(truth: Truth) -> MaskForm:
        centers, each = truth.centers.float(), torch.arange(len(truth))
        return OutlineMasks(
            outlines(centers, rays_of(truth.bitmasks, truth.boxes, each, centers, count))
        )

    return form


FORMS = {"36 rays": as_rays(36), "stride 4": on_grid(4), "stride 2": on_grid(2)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", default="shapes_instance_val", help="a registered name")
    parser.add_argument("--images", type=int, default=30, help="the first so many (default: 30)")
    args = parser.parse_args()
    dataset = Dataset.get(args.dataset)
    overlaps: dict[tuple[str, str], list[float]] = defaultdict(list)
    for record in dataset.records[: args.images]:
        truth = truth_of(record)
        names = [dataset.things.names[kind] for kind in truth.classes.tolist()]
        for form, write in FORMS.items():
            read = write(truth)
            for index, name in enumerate(names):
                found = read.paint(index, truth.image_size, *truth.image_size)
                true = truth.bitmasks[index]
                iou = ((found & true).sum() / (found | true).sum().clamp(min=1)).item()
                overlaps[form, name].append(iou)
    classes = list(dict.fromkeys(name for _, name in overlaps))
    rows = [["masks as", "all", *(classes if len(classes) > 1 else [])]]
    for form in FORMS:
        parts = [overlaps[form, name] for name in classes]
        groups = [list(itertools.chain(*parts)), *(parts if len(classes) > 1 else [])]
        rows.append([form, *(f"{np.mean(g):.3f}, {ceiling(g):.1f}" for g in groups)])
    count = sum(len(overlaps[next(iter(FORMS)), name]) for name in classes)
    print(f"{count} objects of {args.images} images of {args.dataset}: mean IoU, ceiling")
    print(run_matrix.markdown(rows))


def ceiling(overlaps: list[float]) -> float:
    """Percent."""
    return 100 * (torch.tensor(overlaps)[:, None] > THRESHOLDS).float().mean().item()


def truth_of(record: dict) -> Truth:
    """The objects of a record, crowds left out."""
    size = (record["height"], record["width"])
    masks = torch.from_numpy(annotation_masks(record, size))
    objects = [a for a in record["annotations"] if not a.get("iscrowd", 0)]
    instances = Instances(size)
    instances.gt_masks = BitMasks(masks)
    instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
    instances.gt_classes = torch.tensor([a["category_id"] for a in objects])
    return Truth(instances, torch.device("cpu"))


if __name__ == "__main__":
    main()
