#!/usr/bin/env python
"""How cost grows: with images of a dataset, image size, number of classes and RoIs.

python tools/benchmark_scaling.py [--quick] [--plot FILE] [NAME ...]

Prints a table for each and, with --plot, draws them. The exponent is the slope between the two
largest sizes on logarithmic axes: 1 is linear, below 1 a fixed part still counts. The evaluator's
memory is what datasets of so many (simulated, small) images add to the process.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import seg_plugins
from seg_plugins.engine.process import keep_freed_memory
from seg_plugins.evaluation import SemanticEvaluator
from seg_plugins.modeling.semantic_loss import SemanticLoss
from seg_plugins.ops import roi_align

import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model
from timing import medians

Points = Iterator[tuple[float, float]]


@dataclass(frozen=True)
class Study:
    """What is varied, what is measured, and at which sizes."""

    varied: str
    measured: str
    sizes: tuple[float, ...]
    points: Callable[[tuple[float, ...], int], Points]


def image_size(sizes: tuple[float, ...], repeats: int) -> Points:
    """Predicting whole images of so many megapixels with DeepLabv3+ on a ResNet-18."""
    opts = ["MODEL.DEVICE", "cpu", "MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS", None]
    model = build_model(seg_plugins.load_config("camvid/deeplabv3plus_r18.yaml", opts)).eval()
    for megapixels in sizes:
        side = round(math.sqrt(megapixels * 1e6))
        image = torch.randint(256, (3, side, side), dtype=torch.uint8)
        sample = {"image": image, "height": side, "width": side}
        with torch.inference_mode():
            yield megapixels, medians({"": lambda s=sample: model([s])}, repeats)[""]


def class_count(sizes: tuple[float, ...], repeats: int) -> Points:
    """Loss with gradient, then scoring, of 256x256 scores for so many classes."""
    for classes in map(int, sizes):
        scores = torch.randn(1, classes, 256, 256, requires_grad=True)
        labels = torch.randint(classes, (1, 256, 256))
        loss = SemanticLoss(
            loss_type="cross_entropy + dice", ignore_value=65535, num_classes=classes
        )
        evaluator, records = semantic_evaluator(classes, labels[0].numpy().astype(np.uint16))

        def work(
            scores: torch.Tensor = scores,
            labels: torch.Tensor = labels,
            loss: SemanticLoss = loss,
            evaluator: SemanticEvaluator = evaluator,
            records: list[dict[str, str]] = records,
        ) -> None:
            scores.grad = None
            loss(scores, labels).value.backward()
            evaluator.reset()
            evaluator.process(records, [{"sem_seg": scores[0].detach()}])

        yield classes, medians({"": work}, repeats)[""]


def roi_count(sizes: tuple[float, ...], repeats: int) -> Points:
    """RoIAlign 7x7 with gradient of so many RoIs on one 200x304 map of 256 channels."""
    features = torch.randn(1, 256, 200, 304).contiguous(memory_format=torch.channels_last)
    features.requires_grad_()
    for count in map(int, sizes):
        corner = torch.rand(count, 2) * torch.tensor([1000.0, 600.0])
        boxes = torch.cat([torch.zeros(count, 1), corner, corner + 150], 1)

        def work(boxes: torch.Tensor = boxes) -> None:
            features.grad = None
            roi_align(features, boxes, 7, 0.25).sum().backward()

        yield count, medians({"": work}, repeats)[""]


def dataset_size(sizes: tuple[float, ...], repeats: int) -> Points:
    """MiB that scoring so many images of 32x32 with the evaluator adds to the process, at most."""
    del repeats
    output = {"sem_seg": torch.rand(8, 32, 32)}
    for count in map(int, sizes):
        evaluator, records = semantic_evaluator(8, np.zeros((32, 32), np.uint16), count)
        before = most = resident_mib()
        for position, record in enumerate(records):
            evaluator.process([record], [output])
            if position % 100 == 0:
                most = max(most, resident_mib())
        evaluator.evaluate()
        yield count, max(most, resident_mib()) - before


def resident_mib() -> float:
    """Memory of this process that is in RAM; Linux alone tells it."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def semantic_evaluator(
    classes: int, truth: np.ndarray, count: int = 1
) -> tuple[SemanticEvaluator, list[dict[str, str]]]:
    """An evaluator of a dataset of so many images, all with this truth, and their records."""
    name = "scaling"
    for catalog in (DatasetCatalog, MetadataCatalog):
        if name in catalog.list():
            catalog.remove(name)
    records = [{"file_name": str(i), "sem_seg_file_name": str(i)} for i in range(count)]
    DatasetCatalog.register(name, lambda: records)
    MetadataCatalog.get(name).set(
        stuff_classes=[str(i) for i in range(classes)],
        ignore_label=65535,
        sem_seg_loading_fn=lambda path: truth,
    )
    return SemanticEvaluator(name), records


STUDIES = {
    # First: memory that others have freed would hide what this one takes.
    "dataset size": Study("images", "MiB", (100, 1000, 10_000, 100_000), dataset_size),
    "image size": Study("megapixels", "ms", (0.25, 1, 4, 16), image_size),
    "classes": Study("classes", "ms", (2, 10, 100, 1000), class_count),
    "RoIs": Study("RoIs", "ms", (64, 256, 1024, 4096), roi_count),
}


def exponent(points: list[tuple[float, float]]) -> float:
    """Slope between the last two points on logarithmic axes; 0 where nothing grows."""
    (x0, y0), (x1, y1) = points[-2:]
    return math.log(y1 / y0) / math.log(x1 / x0) if min(y0, y1) > 0 else 0.0


def plot(curves: dict[str, list[tuple[float, float]]], file: Path) -> None:
    """Draw the studies beside lines of slope 1."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(curves), 2.8), layout="constrained")
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    for axes, (name, points) in zip(panels, curves.items(), strict=True):
        xs, ys = zip(*points, strict=True)
        axes.plot(xs, ys, "o-", label="measured")
        if min(ys) > 0:
            axes.set_yscale("log")
            axes.plot(xs, [ys[-1] * x / xs[-1] for x in xs], ":", color="grey", label="linear")
        study = STUDIES[name]
        axes.set(xscale="log", xlabel=study.varied, ylabel=study.measured, title=name)
        axes.legend()
    figure.savefig(file, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help=f"of {', '.join(STUDIES)}; all without one")
    parser.add_argument("--quick", action="store_true", help="leave the largest sizes out")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw all into a picture")
    args = parser.parse_args()
    if unknown := set(args.names) - set(STUDIES):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(STUDIES)}")
    torch.manual_seed(0)
    curves: dict[str, list[tuple[float, float]]] = {}
    for name, study in STUDIES.items():
        if args.names and name not in args.names:
            continue
        if study.measured == "ms":
            keep_freed_memory()  # as training does
        points = curves[name] = []
        print(f"\n{study.points.__doc__}\n\n| {study.varied} | {study.measured} |\n|---|---|")
        for point in study.points(study.sizes[:-1] if args.quick else study.sizes, args.repeats):
            points.append(point)
            print(f"| {point[0]:g} | {point[1]:.1f} |", flush=True)
        print(f"\nexponent {exponent(points):.2f}")
    if args.plot:
        args.plot.parent.mkdir(parents=True, exist_ok=True)
        plot(curves, args.plot)


if __name__ == "__main__":
    main()
