"""Merging instances with semantic labels, and grouping pixels by centres, beside Detectron2's.

    python tools/benchmark_panoptic.py --threads 2

Prints medians in milliseconds. Every form is checked to give Detectron2's result first.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from seg_plugins.modeling.instance_centers import segments_from_centers
from seg_plugins.modeling.panoptic_merging import merge_panoptic
from seg_plugins.ops import panoptic_merge
from seg_plugins.ops.mask_paste import paste_masks

import detectron2
import torch
from detectron2.layers import paste_masks_in_image
from detectron2.modeling.meta_arch.panoptic_fpn import combine_semantic_and_instance_outputs
from detectron2.structures import Instances
from timing import medians
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
    for name, form in forms.items():
        ids, segments = form()
        if not torch.equal(ids, expected_ids) or segments != expected:
            raise SystemExit(f"{name}: not Detectron2's result")
    kept = sum(segment["isthing"] for segment in expected)
    print(
        f"{args.height}x{args.width}, {args.instances} instances of which {kept} are kept, "
        f"{len(expected) - kept} stuff segments, {args.threads} threads; medians of "
        f"{args.repeats}, the same result"
    )
    compare(forms, args.repeats)
    group(args, labels)


def compare(forms: dict[str, Callable[[], Any]], repeats: int) -> None:
    """Run the forms in turn and print a table against the first one."""
    times = medians(forms, repeats)
    print(f"{'form':24}{'ms':>10}{'ratio':>9}")
    for name, median in times.items():
        print(f"{name:24}{median:10.1f}{times['Detectron2'] / median:8.1f}x")


def group(args: argparse.Namespace, labels: Tensor) -> None:
    """Panoptic-DeepLab's post-processing with as many centres; a third of the labels are things."""
    folder = Path(detectron2.__file__).parent / "projects" / "panoptic_deeplab"
    if not folder.is_dir():
        print("Detectron2's Panoptic-DeepLab project is not installed: no comparison of grouping")
        return
    spec = importlib.util.spec_from_file_location("peer", folder / "post_processing.py")
    assert spec is not None
    assert spec.loader is not None
    peer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(peer)
    generator = torch.Generator().manual_seed(1)
    heatmap = torch.rand(args.height, args.width, generator=generator) * 0.09
    places = torch.randperm(heatmap.numel(), generator=generator)[: args.instances]
    heatmap.view(-1)[places] = 0.5 + torch.rand(args.instances, generator=generator) / 2
    offsets = torch.randn(2, args.height, args.width, generator=generator) * 30
    things = list(range(args.labels // 3))
    forms = {
        "Detectron2": lambda: peer.get_panoptic_segmentation(
            labels[None], heatmap[None].clone(), offsets, set(things), 1000, 2048, -1, 0.1, 7, 200
        )[0][0],
        "grouping": lambda: (
            segments_from_centers(
                labels,
                heatmap,
                offsets,
                args.labels,
                things,
                stuff_area=2048,
                threshold=0.1,
                nms_kernel=7,
                top_k=200,
            ).ids
        ),
    }
    expected, found = (form().flatten() for form in forms.values())
    pairs = torch.stack([expected, found]).unique(dim=1)
    if not len(pairs[0].unique()) == len(pairs[1].unique()) == pairs.shape[1]:
        raise SystemExit("grouping: not Detectron2's partition")
    print(f"\nGrouping by {args.instances} centres, the same segments")
    compare(forms, args.repeats)


if __name__ == "__main__":
    main()
