"""Merging of instances and semantic labels, side by side with Detectron2's.

    python tools/benchmark_panoptic.py --threads 2

Prints medians in milliseconds. Every form is checked to give Detectron2's result first.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from unittest import mock

from seg_plugins.modeling.panoptic_merging import merge_panoptic
from seg_plugins.ops import panoptic_merge
from seg_plugins.ops.mask_paste import paste_masks

import torch
from detectron2.layers import paste_masks_in_image
from detectron2.modeling.meta_arch.panoptic_fpn import combine_semantic_and_instance_outputs
from detectron2.structures import Instances
from torch import Tensor

THRESHOLDS = {"overlap_threshold": 0.5, "stuff_area_threshold": 4096, "score_threshold": 0.5}


def scene(height: int, width: int, count: int, labels: int) -> tuple[Instances, Instances, Tensor]:
    """Instances with bitmasks, the same with run lengths, and a label map of blobs."""
    generator = torch.Generator().manual_seed(0)

    def uniform(*size: int) -> Tensor:
        return torch.rand(size, generator=generator)

    side = 20 * 20 ** uniform(count)  # log-uniform from 20 to 400 pixels
    aspect = torch.exp(uniform(count) - 0.5)
    sizes = torch.stack([side * aspect, side / aspect], dim=1)
    corners = uniform(count, 2) * (torch.tensor([float(width), float(height)]) - sizes).clamp(min=1)
    boxes = torch.cat([corners, corners + sizes], dim=1)
    coarse = torch.nn.functional.interpolate(uniform(count, 1, 7, 7), (28, 28), mode="bilinear")
    ys = torch.linspace(-1, 1, 28)
    probabilities = coarse[:, 0] + 0.6 - ys[:, None] ** 2 - ys**2  # ragged discs

    painted = Instances((height, width))
    painted.scores = 0.5 + uniform(count) / 2
    painted.pred_classes = torch.randint(0, 80, (count,), generator=generator)
    encoded = Instances((height, width), **painted.get_fields())
    painted.pred_masks = paste_masks_in_image(probabilities, boxes, (height, width))
    encoded.pred_masks = paste_masks(probabilities, boxes, height, width)
    scores = torch.nn.functional.interpolate(
        uniform(1, labels, 8, 16), (height, width), mode="bilinear"
    )
    return painted, encoded, scores[0].max(dim=0).indices


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--height", type=int, default=1024)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--instances", type=int, default=100)
    parser.add_argument("--labels", type=int, default=19)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    painted, encoded, labels = scene(args.height, args.width, args.instances, args.labels)

    def portable() -> tuple[Tensor, list]:
        with mock.patch.object(panoptic_merge, "compiled", return_value=False):
            return merge_panoptic(painted, labels, args.labels, **THRESHOLDS)

    forms: dict[str, Callable[[], tuple[Tensor, list]]] = {
        "Detectron2": lambda: combine_semantic_and_instance_outputs(
            painted, labels, *THRESHOLDS.values()
        ),
        "bitmasks": lambda: merge_panoptic(painted, labels, args.labels, **THRESHOLDS),
        "run lengths": lambda: merge_panoptic(encoded, labels, args.labels, **THRESHOLDS),
        "without the extension": portable,
    }
    expected_ids, expected = forms["Detectron2"]()
    times: dict[str, list[float]] = {name: [] for name in forms}
    for name, form in forms.items():
        ids, segments = form()
        if not torch.equal(ids, expected_ids) or segments != expected:
            raise SystemExit(f"{name}: not Detectron2's result")
    for _ in range(args.repeats):
        for name, form in forms.items():
            begin = time.perf_counter()
            form()
            times[name].append(1e3 * (time.perf_counter() - begin))
    kept = sum(segment["isthing"] for segment in expected)
    print(
        f"{args.height}x{args.width}, {args.instances} instances of which {kept} are kept, "
        f"{len(expected) - kept} stuff segments, {args.threads} threads; medians of "
        f"{args.repeats}, the same result"
    )
    peer = statistics.median(times["Detectron2"])
    print(f"{'form':24}{'ms':>10}{'ratio':>9}")
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{name:24}{median:10.1f}{peer / median:8.1f}x")


if __name__ == "__main__":
    main()
