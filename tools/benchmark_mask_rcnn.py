"""Time one training step of Mask R-CNN FPN against Detectron2's own, weights and inputs equal.

    python tools/benchmark_mask_rcnn.py --threads 2

ResNet-50, batch 2 at 256x256 with eight instances an image, float32, forward and backward. All
candidates take turns in one process, which keeps freed memory as a training on the CPU does;
figures are medians and the peer's time over ours.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from seg_plugins import load_config
from seg_plugins.engine.process import keep_freed_memory

import torch
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Instances
from detectron2.utils.events import EventStorage
from timing import medians

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "coco"


def build(system: str, name: str, channels_last: bool) -> torch.nn.Module:
    """A model from the COCO configuration, on the CPU, with the same random weights each time."""
    torch.manual_seed(0)
    cfg = load_config(CONFIGS / f"mask_rcnn_r50_{system}_1x.yaml")
    cfg.MODEL.META_ARCHITECTURE = name
    cfg.MODEL.DEVICE = "cpu"
    # Frozen batch norms without trained statistics let activations overflow, and no region is left.
    cfg.MODEL.RESNETS.NORM = "BN"
    model = build_model(cfg).train()
    return model.to(memory_format=torch.channels_last) if channels_last else model


def batch(size: int) -> list[dict[str, Any]]:
    """Two random images with eight rectangles each."""
    samples = []
    for _ in range(2):
        masks = torch.zeros(8, size, size, dtype=torch.bool)
        for mask in masks:
            top, left = (torch.rand(2) * size * 0.7).int().tolist()
            height, width = (torch.rand(2) * size * 0.4 + 8).int().tolist()
            mask[top : top + height, left : left + width] = True
        instances = Instances((size, size))
        instances.gt_masks = BitMasks(masks)
        instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        instances.gt_classes = torch.randint(80, (8,))
        image = torch.randint(256, (3, size, size), dtype=torch.uint8)
        samples.append({"image": image, "instances": instances})
    return samples


def step(model: torch.nn.Module, samples: list[dict[str, Any]]) -> None:
    """One forward and backward pass."""
    model.zero_grad()
    torch.manual_seed(1)
    with EventStorage():
        losses = model(samples)
    sum(losses.values()).backward()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--system", choices=["fpn", "c4"], default="fpn")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    ours = {"fpn": "MaskRCNNFPN", "c4": "MaskRCNNC4"}[args.system]
    models = {
        "Detectron2": build(args.system, "GeneralizedRCNN", False),
        "Detectron2, channels last": build(args.system, "GeneralizedRCNN", True),
        ours: build(args.system, ours, False),
        f"{ours}, channels last": build(args.system, ours, True),
    }
    torch.manual_seed(2)
    samples = batch(args.size)
    steps = {name: partial(step, model, samples) for name, model in models.items()}
    times = medians(steps, args.repeats)
    peer = min(times["Detectron2"], times["Detectron2, channels last"])
    print(
        f"{args.threads} threads, 2 x {args.size}x{args.size}, ratios to Detectron2's faster form"
    )
    for name, value in times.items():
        print(f"| {name} | {value:.0f} ms | {peer / value:.2f}x |")


if __name__ == "__main__":
    main()
