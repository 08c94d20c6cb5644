"""Time predicted masks to COCO run lengths: straight, and by Detectron2's paste and pycocotools.

    python tools/benchmark_mask_rle.py --threads 2

100 masks of 28x28 in boxes of log-uniform side 16 to 600 pixels. Both ways run in turns in one
process; figures are medians. The strings are compared byte for byte.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import seg_plugins  # noqa: F401 - repairs Detectron2 first
from seg_plugins.ops.mask_paste import paste_masks

import numpy as np
import pycocotools.mask as coco_mask
import torch
from benchmark_roi_align import random_boxes
from detectron2.layers import paste_masks_in_image
from timing import medians
from torch import Tensor


def soft_masks(count: int) -> Tensor:
    """(count, 28, 28) blobs with soft, noisy edges, as a mask head gives them."""
    coarse = torch.randn(count, 1, 5, 5)
    fine = torch.nn.functional.interpolate(coarse, (28, 28), mode="bicubic")
    return (6 * fine + 0.5 * torch.randn(count, 1, 28, 28)).sigmoid()[:, 0]


def paint_and_encode(masks: Tensor, boxes: Tensor, height: int, width: int) -> list[bytes]:
    """What Detectron2 does: full-size bitmasks, then pycocotools, mask by mask."""
    bitmasks = paste_masks_in_image(masks, boxes, (height, width))
    return [
        coco_mask.encode(np.array(mask[:, :, None], order="F", dtype="uint8"))[0]["counts"]
        for mask in bitmasks
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"{args.threads} threads, 100 masks; milliseconds\n")
    print("| image | Detectron2 | straight | ratio | same bytes | bitmasks | run lengths |")
    print("|" + "---|" * 7)
    for height, width in ((800, 1333), (1024, 2048)):
        torch.manual_seed(0)
        masks, boxes = soft_masks(100), random_boxes(100, height, width)
        work = (masks, boxes, height, width)
        forms: dict[str, Callable[[], object]] = {
            "peer": partial(paint_and_encode, *work),
            "ours": partial(paste_masks, *work),
        }
        peer, ours = medians(forms, args.repeats).values()
        expected, found = paint_and_encode(*work), paste_masks(*work)
        same = [found.string(i) for i in range(100)] == expected
        print(
            f"| {height}x{width} | {peer:.0f} | {ours:.2f} | {peer / ours:.0f}x | {same} "
            f"| {100 * height * width / 2**20:.0f} MiB | {found.data.nbytes / 2**10:.0f} KiB |"
        )


if __name__ == "__main__":
    main()
