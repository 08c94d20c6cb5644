#!/usr/bin/env python
"""Memory and time of predicting TIFFs by windows.

python tools/benchmark_predict.py                          # 2,000, 8,000 and 20,000 pixels a side
python tools/benchmark_predict.py --sizes 1000 4000
python tools/benchmark_predict.py --objects                # objects put together across windows
python tools/benchmark_predict.py --pieces                 # connected pieces of a class
python tools/benchmark_predict.py --speed                  # seconds beside the image as a whole
python tools/benchmark_predict.py --soak 200               # memory after 20 and after 200 windows

The first four print the peak memory, each size in a process of its own. --speed takes turns with
predicting the whole image, in one process: a U-Net of 16 channels, mask written, medians; the work
is the pixels of all windows by those of the image. Beside other programs seconds of CPU tell more.

With --objects a stand-in for a network finds bright discs, 25 in 512 x 512 pixels: what is measured
is the finding of an object in several windows, its record and its drawing. With --pieces another
one gives the discs' pixels, of which `--instances components` makes objects.
"""

from __future__ import annotations

import argparse
import math
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).resolve()


def write_scene(path: Path, side: int, discs: bool = False) -> None:
    """A georeferenced RGB TIFF of texture or of discs, written tile by tile."""
    import numpy as np
    import rasterio
    from affine import Affine

    rng = np.random.default_rng(0)
    tile = rng.integers(0, 256, (3, 512, 512), np.uint8)
    if discs:
        y, x = np.mgrid[:512, :512]
        inside = (y % 100 - 50) ** 2 + (x % 100 - 50) ** 2 < 900
        tile = np.repeat(np.where(inside, 255, 20)[None].astype(np.uint8), 3, axis=0)
    with (
        rasterio.Env(GDAL_CACHEMAX=64),
        rasterio.open(
            path,
            "w",
            driver="GTiff",
            height=side,
            width=side,
            count=3,
            dtype="uint8",
            crs="EPSG:32633",
            transform=Affine(0.5, 0, 400_000, 0, -0.5, 5_800_000),
            tiled=True,
            blockxsize=512,
            blockysize=512,
            bigtiff="if_safer",
        ) as raster,
    ):
        for y in range(0, side, 512):
            for x in range(0, side, 512):
                height, width = min(512, side - y), min(512, side - x)
                raster.write(tile[:, :height, :width], window=((y, y + height), (x, x + width)))


def unet_predictor(width: int = 2, depth: int = 2) -> Any:
    """A U-Net of random weights."""
    import seg_plugins  # first

    import torch
    from detectron2.modeling import build_model

    opts = ["MODEL.UNET.WIDTH", str(width), "MODEL.UNET.DEPTH", str(depth)]
    features = [f"enc{level}" for level in range(1, depth + 1)]
    opts += ["MODEL.DEVICE", "cpu", "MODEL.SEM_SEG_HEAD.IN_FEATURES", str(features)]
    opts += ["INPUT.MIN_SIZE_TEST", "0"]  # as windows: at the image's own resolution
    opts += ["MODEL.SEM_SEG_HEAD.NUM_CLASSES", "3", "DATASETS.TRAIN", "()", "DATASETS.TEST", "()"]
    from seg_plugins.prediction import Predictor
    from seg_plugins.prediction.inputs import Preparation
    from seg_plugins.prediction.labels import labels_from_config

    torch.manual_seed(0)
    cfg = seg_plugins.load_config("quickstart/unet_shapes.yaml", opts)
    model = build_model(cfg)
    return Predictor(model=model, preparation=Preparation(cfg), labels=labels_from_config(cfg))


def disc_predictor() -> Any:
    """Finds connected bright pixels."""
    import seg_plugins  # first
    from seg_plugins.ops.run_length import RunLengthMasks
    from seg_plugins.prediction import Predictor
    from seg_plugins.prediction.inputs import Preparation
    from seg_plugins.prediction.labels import Label, Labels

    import cv2
    import numpy as np
    import torch
    from detectron2.structures import Boxes, Instances

    class Discs(torch.nn.Module):
        alignment = 1

        def forward(self, samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
            return [self.one(sample["image"][0].numpy()) for sample in samples]

        def one(self, image: np.ndarray) -> dict[str, Any]:
            count, pieces, stats, _ = cv2.connectedComponentsWithStats(
                (image > 128).astype(np.uint8)
            )
            codes = [
                RunLengthMasks.from_bitmasks(pieces[None] == i).string(0) for i in range(1, count)
            ]
            corners = torch.from_numpy(stats[1:, :4].astype(np.float32))
            corners[:, 2:] += corners[:, :2]
            found = Instances(image.shape)
            found.pred_boxes = Boxes(corners)
            found.pred_masks = RunLengthMasks.from_strings(codes, *image.shape)
            found.scores = torch.full((count - 1,), 0.9)
            found.pred_classes = torch.zeros(count - 1, dtype=torch.int64)
            return {"instances": found}

    cfg = seg_plugins.get_cfg()
    cfg.INPUT.MIN_SIZE_TEST = 0
    labels = Labels(things=(Label("disc", (200, 0, 0), 1, True),))
    return Predictor(model=Discs(), preparation=Preparation(cfg), labels=labels)


def bright_predictor() -> Any:
    """Two classes by brightness."""
    import seg_plugins  # first
    from seg_plugins.prediction import Predictor
    from seg_plugins.prediction.inputs import Preparation
    from seg_plugins.prediction.labels import Label, Labels

    import torch

    class Bright(torch.nn.Module):
        alignment = 1

        def forward(self, samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
            images = [sample["image"][0].float() - 128 for sample in samples]
            return [{"sem_seg": torch.stack([-image, image])} for image in images]

    cfg = seg_plugins.get_cfg()
    cfg.INPUT.MIN_SIZE_TEST = 0
    stuff = (Label("background", (0, 0, 0), 0, False), Label("disc", (200, 0, 0), 1, False))
    labels = Labels(stuff=stuff)
    return Predictor(model=Bright(), preparation=Preparation(cfg), labels=labels)


PREDICTORS = {"classes": unet_predictor, "objects": disc_predictor, "pieces": bright_predictor}


def predict(path: Path, folder: Path, window: int, kind: str) -> None:
    """Predict and print seconds, and the peak in MiB before and after."""
    predictor = PREDICTORS[kind]()
    from seg_plugins.engine.process import keep_freed_memory
    from seg_plugins.prediction.outputs import OutputOptions
    from seg_plugins.prediction.rasters import predict_raster
    from seg_plugins.prediction.run import grid_for

    keep_freed_memory()  # as tools/predict.py does
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    begin = time.perf_counter()
    save = ("mask", "objects") if kind == "pieces" else ("mask", "overlay")
    options = OutputOptions(save, components=kind == "pieces")
    predict_raster(predictor, path, folder, "scene", options, grid_for(predictor.model, window))
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{seconds:.1f} {before:.0f} {peak:.0f}")


def compare(folder: Path, side: int, window: int, rounds: int) -> None:
    """Print the seconds of one image as a whole and by windows, in turns."""
    predictor = unet_predictor(width=16, depth=4)
    from seg_plugins.engine.process import keep_freed_memory
    from seg_plugins.prediction.outputs import OutputOptions, save_prediction
    from seg_plugins.prediction.rasters import predict_raster
    from seg_plugins.prediction.run import grid_for

    keep_freed_memory()
    path, options = folder / "scene.tif", OutputOptions(("mask",), label_files="tif")
    write_scene(path, side)
    grid = grid_for(predictor.model, window)
    covered = sum(end - start for start, end in grid.spans(side)) ** 2 / side**2

    def whole() -> None:
        found = predictor(path)
        save_prediction(found, folder, "whole", options, fingerprint="-", source=path)

    def windows() -> None:
        predict_raster(predictor, path, folder, "windows", options, grid)

    seconds: dict[Any, list[tuple[float, float]]] = {whole: [], windows: []}
    for turn in range(rounds + 1):
        for run, times in seconds.items():
            begin = time.perf_counter(), time.process_time()
            run()
            if turn:  # the first warms up
                times.append((time.perf_counter() - begin[0], time.process_time() - begin[1]))
    print(f"{side} x {side}, {len(grid.spans(side)) ** 2} windows of {window}, {rounds} rounds")
    print(f"work: {covered:.2f} times the pixels")
    print("          whole s   windows s   ratio   beside the work (at most 1.15)")
    for place, name in enumerate(("by clock", "of CPU")):
        one, many = (statistics.median(t[place] for t in times) for times in seconds.values())
        ratio = many / one
        print(f"{name:<9} {one:>7.2f} {many:>11.2f} {ratio:>7.2f}   {ratio / covered:.2f}")


def soak(folder: Path, count: int) -> None:
    """Print the memory in use after 20 windows and after all."""
    predictor = unet_predictor()
    from seg_plugins.engine.process import keep_freed_memory
    from seg_plugins.prediction.outputs import OutputOptions
    from seg_plugins.prediction.rasters import predict_raster
    from seg_plugins.prediction.run import grid_for

    keep_freed_memory()
    grid = grid_for(predictor.model, 256)
    side = grid.size + grid.stride * (math.isqrt(count - 1))
    path = folder / "scene.tif"
    write_scene(path, side)
    used: list[float] = []
    outputs = predictor.outputs

    def measured(*args: Any, **options: Any) -> Any:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        used.append(pages * resource.getpagesize() / 2**20)
        return outputs(*args, **options)

    predictor.outputs = measured
    options = OutputOptions(("mask", "overlay"))
    predict_raster(predictor, path, folder, "scene", options, grid)
    print("windows   MiB")
    for number in (20, len(used)):
        print(f"{number:<9} {used[number - 1]:.0f}")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[2000, 8000, 20000])
    parser.add_argument("--window", type=int, default=1024)
    parser.add_argument("--speed", action="store_true", help="beside the whole image")
    parser.add_argument("--soak", type=int, metavar="N", help="windows of one raster")
    parser.add_argument("--rounds", type=int, default=5, help="of --speed")
    for kind, text in (("objects", "find objects"), ("pieces", "connect the pixels of a class")):
        parser.add_argument(
            f"--{kind}", action="store_const", const=kind, dest="kind", default="classes", help=text
        )
    parser.add_argument("--folder", help="of the files (default: a temporary one)")
    parser.add_argument("--single", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.single:
        predict(Path(args.single[0]), Path(args.single[1]), args.window, args.kind)
        return 0
    if args.speed or args.soak:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            if args.speed:
                compare(Path(folder), args.sizes[0], args.window, args.rounds)
            else:
                soak(Path(folder), args.soak)
        return 0
    print("side    image MiB   seconds   MiB before   peak MiB   against the first")
    first = 0.0
    for side in args.sizes:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            path = Path(folder) / "scene.tif"
            # Made in another process: the peak of this one is inherited by its children.
            code = f"import runpy; runpy.run_path({str(SCRIPT)!r})['write_scene']"
            discs = args.kind != "classes"
            code = f"{code}(__import__('pathlib').Path({str(path)!r}), {side}, {discs})"
            subprocess.run([sys.executable, "-c", code], check=True)
            command = [sys.executable, SCRIPT, "--window", args.window]
            command += [] if args.kind == "classes" else [f"--{args.kind}"]
            command = [*map(str, command), "--single", str(path), folder]
            run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            seconds, before, peak = (float(number) for number in run.stdout.split()[-3:])
            first = first or peak
            print(
                f"{side:<7} {3 * side * side / 2**20:>9.0f} {seconds:>9.1f} {before:>12.0f} "
                f"{peak:>10.0f} {100 * (peak / first - 1):>+17.1f}%",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
