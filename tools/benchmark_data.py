#!/usr/bin/env python
"""Time the semantic mapper against Detectron2's at Cityscapes size, one thread, medians.

python tools/benchmark_data.py [--repeats 5]

Both read the same 1024x2048 files, resize the shorter edge to 512..2048, crop 512x1024 and flip;
color is our ColorJitter against the ColorAugSSDTransform of Detectron2's PointRend project. A
figure is the mean of 13 sizes' medians, each size taken by both in turns. Reading alone is that of
PNGs as Pillow writes them, a median of 3 * REPEATS.
"""

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import seg_plugins  # noqa: F401 - repairs Detectron2 before it is imported
from seg_plugins.data.augmentations import Crop, Flip, ResizeShortestEdge
from seg_plugins.data.decoded_cache import DecodedCache
from seg_plugins.data.instance_mapper import InstanceMapper
from seg_plugins.data.photometric import ColorJitter
from seg_plugins.data.semantic_mapper import SemanticMapper
from seg_plugins.io.images import read_image, read_label

import cv2
import numpy as np
import torch
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from detectron2.data.detection_utils import read_image as detectron2_read_image
from detectron2.projects.point_rend import ColorAugSSDTransform
from PIL import Image
from timing import medians

SIZES = tuple(range(512, 2049, 128))
CROP = (512, 1024)


def write_sample(folder: Path, suffix: str) -> dict:
    """A picture with detail at all scales, and a label of regions."""
    rng = np.random.default_rng(0)
    image = np.zeros((1024, 2048, 3), np.float32)
    for scale in (1, 2, 4, 16, 64, 256):
        noise = rng.random((1024 // scale, 2048 // scale, 3), np.float32) - 0.5
        weight = 12 if scale < 4 else 40
        image += weight * cv2.resize(noise, (2048, 1024), interpolation=cv2.INTER_CUBIC)
    label = cv2.resize(rng.integers(0, 19, (32, 64)).astype(np.uint8), (2048, 1024),
                       interpolation=cv2.INTER_NEAREST)  # fmt: skip
    record = {
        "file_name": str(folder / f"image{suffix}"),
        "sem_seg_file_name": str(folder / "label.png"),
        "height": 1024,
        "width": 2048,
    }
    cv2.imwrite(record["file_name"], np.clip(image + 128, 0, 255).astype(np.uint8))
    cv2.imwrite(record["sem_seg_file_name"], label)
    return record


def time_reading(record: dict, repeats: int) -> None:
    """A frame and its label against Detectron2's reader, which is Pillow."""
    frame, label = record["file_name"], record["sem_seg_file_name"]
    for file in (frame, label):
        Image.open(file).save(file)
    rows = {
        "frame": (lambda: detectron2_read_image(frame, "BGR"), lambda: read_image(frame)),
        "label": (lambda: detectron2_read_image(label), lambda: read_label(label)),
    }
    for name, (peer, ours) in rows.items():
        assert np.array_equal(np.squeeze(peer()), ours())
        # The mappers need the pixels side by side in memory; OpenCV gives them so.
        in_order = lambda read=peer: np.ascontiguousarray(read())  # noqa: E731
        times = medians({"peer": in_order, "ours": ours}, 3 * repeats)
        ratio = times["peer"] / times["ours"]
        print(f"{'read ' + name:<34}{times['peer']:>14.1f}{times['ours']:>10.1f}{ratio:>8.2f}")


def ring(rng: np.random.Generator) -> list[float]:
    """A polygon of 40 points."""
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    x, y = rng.uniform(200, 1800), rng.uniform(200, 800)
    radius = rng.uniform(30, 150) * (1 + 0.2 * np.sin(5 * angles))
    return np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], 1).ravel().tolist()


class ColorAug(T.Augmentation):
    """The colour augmentation that PointRend's and Mask2Former's configurations use."""

    def get_transform(self, image):  # noqa: D102
        return ColorAugSSDTransform(img_format="BGR")


def geometry(size: int) -> list:
    """Our augmentations with this shorter edge."""
    return [ResizeShortestEdge([size], 4096), Crop(CROP), Flip()]


def detectron2_geometry(size: int) -> list:
    """The same, Detectron2's."""
    return [
        T.ResizeShortestEdge([size], 4096, "choice"),
        T.RandomCrop("absolute", CROP),
        T.RandomFlip(),
    ]


def means(candidates: dict[str, Callable[[int], Callable[[], object]]], repeats: int) -> dict:
    """Milliseconds of each candidate: `candidates[name](size)` makes what is timed."""
    total = dict.fromkeys(candidates, 0.0)
    for size in SIZES:
        found = medians({name: make(size) for name, make in candidates.items()}, repeats)
        for name, milliseconds in found.items():
            total[name] += milliseconds / len(SIZES)
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    rng = np.random.default_rng(0)
    np.random.seed(0)
    print(f"{'input':<34}{'Detectron2 ms':>14}{'ours ms':>10}{'ratio':>8}")

    def report(name: str, record: dict, jitter: bool, cache: DecodedCache | None = None) -> None:
        def ours(size: int) -> Callable[[], object]:
            mapper = SemanticMapper(
                is_train=True,
                augmentations=geometry(size),
                photometric=[ColorJitter()] if jitter else [],
                cache=cache,
            )
            return lambda: mapper(record, rng)

        def peer(size: int) -> Callable[[], object]:
            augmentations = detectron2_geometry(size) + ([ColorAug()] if jitter else [])
            mapper = DatasetMapper(True, augmentations=augmentations, image_format="BGR")
            return lambda: mapper(record)

        times = means({"peer": peer, "ours": ours}, args.repeats)
        ratio = times["peer"] / times["ours"]
        print(f"{name:<34}{times['peer']:>14.1f}{times['ours']:>10.1f}{ratio:>8.2f}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        time_reading(write_sample(Path(folder), ".png"), args.repeats)
        for suffix in (".png", ".jpg"):
            record = write_sample(Path(folder), suffix)
            for jitter in (False, True):
                report(f"{suffix[1:]}{' + color' if jitter else ''}", record, jitter)
        cache = DecodedCache(Path(folder) / "cache", max_bytes=1 << 30)
        report("png, decoded cache", write_sample(Path(folder), ".png"), False, cache)

        ring_rng = np.random.default_rng(1)
        polygons = [ring(ring_rng) for _ in range(20)]
        record = write_sample(Path(folder), ".jpg")
        del record["sem_seg_file_name"]
        record["annotations"] = [
            {
                "bbox": [min(p[::2]), min(p[1::2]), max(p[::2]), max(p[1::2])],
                "bbox_mode": 0,
                "category_id": 0,
                "segmentation": [p],
            }
            for p in polygons
        ]
        bare = {**record, "annotations": []}
        for kind in ("polygon", "bitmask"):

            def instances(sample: dict, size: int, kind: str = kind) -> Callable[[], object]:
                mapper = InstanceMapper(
                    is_train=True, augmentations=geometry(size), mask_format=kind
                )
                return lambda: mapper(sample, rng)

            times = means(
                {"with": partial(instances, record), "without": partial(instances, bare)},
                args.repeats,
            )
            added = times["with"] - times["without"]
            print(f"20 instances as {kind}s add {added:.1f} ms to {times['without']:.1f} ms")


if __name__ == "__main__":
    main()
