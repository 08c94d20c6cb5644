#!/usr/bin/env python
"""Images a second of a folder, from files to files, by runtime and beside Detectron2.

    python tools/benchmark_runtimes.py --input photos/ --threads 2 --repeats 5
    python tools/benchmark_runtimes.py --input photos/ "Mask R-CNN R50-FPN"

Each candidate reads every image, predicts it and writes a mask of ids as PNG. DefaultPredictor and
"eager loop" do that one image after another, float32, as their documentation shows it: imread,
network, imwrite. The others are ``predict.run``. All take turns in one process and start with an
empty folder; figures are medians, ratios are DefaultPredictor's time over the candidate's. Weights
are random: speed does not ask for better ones (an INT8 file has every layer quantised), but what is
found in an image does (Mask R-CNN keeps the 20 best of each image, on both sides). Start-up and
memory are those of the command ``seg-plugins predict`` for one image, from Python's start to its
end. ultralytics' smallest network of instances, a third of Mask R-CNN's work, runs beside it where
it is installed. Peers that are not installed are named.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import seg_plugins  # first: repairs Detectron2
from seg_plugins.engine.process import keep_freed_memory
from seg_plugins.export import export_model
from seg_plugins.export.metric import MetricCheck
from seg_plugins.export.quantize import quantize
from seg_plugins.prediction import Predictor
from seg_plugins.prediction.inputs import find_sources
from seg_plugins.prediction.outputs import OutputOptions
from seg_plugins.prediction.run import RunOptions, run

import cv2
import numpy as np
import torch
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_model
from timing import medians

R50 = ["MODEL.RESNETS.DEPTH", 50, "MODEL.RESNETS.NORM", "BN", "MODEL.SEM_SEG_HEAD.NORM", "BN",
       "INPUT.MIN_SIZE_TEST", 360, "INPUT.MAX_SIZE_TEST", 480]  # fmt: skip
SYSTEMS: dict[str, tuple[str, list[Any]]] = {
    "DeepLabv3+ R18": ("camvid/deeplabv3plus_r18.yaml", []),
    "DeepLabv3+ R50": ("cityscapes/deeplabv3plus_r103.yaml", R50),
    "U-Net": ("camvid/unet_cpu.yaml", ["INPUT.MIN_SIZE_TEST", 360, "INPUT.MAX_SIZE_TEST", 480]),
    "Mask R-CNN R50-FPN": (
        "coco/mask_rcnn_r50_fpn_1x.yaml",
        ["MODEL.RESNETS.NORM", "BN", "INPUT.MIN_SIZE_TEST", 480, "INPUT.MAX_SIZE_TEST", 640,
         "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0, "TEST.DETECTIONS_PER_IMAGE", 20],
    ),
}  # fmt: skip
# name -> runtime ("": PyTorch), precision, file
CANDIDATES = {
    "torch": ("", "float32", "config.yaml"),
    "torch bf16": ("", "bfloat16", "config.yaml"),
    "onnx": ("onnx", "float32", "model.onnx"),
    "openvino": ("openvino", "float32", "model.onnx"),
    "openvino bf16": ("openvino", "bfloat16", "model.onnx"),
    "onnx int8": ("onnx", "float32", "int8.onnx"),
    "openvino int8": ("openvino", "float32", "int8.onnx"),
    "openvino int8, rest bf16": ("openvino", "bfloat16", "int8.onnx"),
}
# The command, and what the process had at most. Linux counts what the parent had at the fork into
# ru_maxrss, but not into this line.
ONE_COMMAND = """
import atexit, sys
from pathlib import Path
atexit.register(lambda: print(Path("/proc/self/status").read_text()))
from seg_plugins.cli.main import main
sys.exit(main())
"""


def prepare(name: str, folder: Path) -> None:
    """Write config.yaml, model.pth and model.onnx of a system with random weights."""
    config, opts = SYSTEMS[name]
    torch.manual_seed(0)
    cfg = seg_plugins.load_config(config, ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", *opts])
    cfg.MODEL.TIMM.PRETRAINED, cfg.MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS = False, None
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ()
    model = build_model(cfg)
    for module in model.modules():  # one pass of training: activations stay finite
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = None
    with torch.no_grad():
        noise = torch.rand(2, len(cfg.MODEL.PIXEL_MEAN), 256, 256) * 255
        model.train().backbone((noise - model.pixel_mean) / model.pixel_std)
    cfg.MODEL.WEIGHTS = str(folder / "model.pth")
    torch.save({"model": model.eval().state_dict()}, cfg.MODEL.WEIGHTS)
    (folder / "config.yaml").write_text(cfg.dump())
    export_model(cfg, model, "onnx", folder, report=lambda line: None)


def prepare_int8(folder: Path, inputs: list[str]) -> None:
    """Write int8.onnx beside model.onnx, every layer quantised: random weights have no metric."""
    predictor = Predictor.from_file(folder / "model.onnx", threads=1)
    batched = predictor.model.engine.rank == 4
    images = []
    for source in find_sources(inputs, folder)[:4]:
        image = predictor.sample(predictor.preparation.read(source.path))["image"].float()
        images.append(image[None] if batched else image)
    shutil.copy(folder / "model.onnx", folder / "int8.onnx")
    passed = [MetricCheck("none", "none", 0.0, 0.0)]
    quantize(folder / "int8.onnx", images, lambda file: passed, 0.0, report=lambda line: None)


def open_candidate(name: str, folder: Path, threads: int) -> Predictor:
    """The predictor of a candidate."""
    runtime, precision, file = CANDIDATES[name]
    options: dict[str, Any] = {"min_score": 0.0, "batch_size": 1, "precision": precision}
    if runtime:
        return Predictor.from_file(folder / file, runtime=runtime, threads=threads, **options)
    return Predictor.from_config(folder / file, **options)


def ours(predictor: Predictor, inputs: list[str]) -> Callable[[], object]:
    """Predict the folder as ``seg-plugins predict --save mask`` does."""

    def job() -> None:
        with tempfile.TemporaryDirectory() as output:
            sources = find_sources(inputs, Path(output))
            summary = run(predictor, sources, Path(output), RunOptions(OutputOptions(("mask",))))
            assert summary.done == len(sources), summary.failed

    return job


def loop(
    predict: Callable[[np.ndarray], dict[str, Any]], inputs: list[str]
) -> Callable[[], object]:
    """Read, predict, write, one image after another."""

    def job() -> None:
        with tempfile.TemporaryDirectory() as output:
            for number, source in enumerate(find_sources(inputs, Path(output))):
                found = predict(cv2.imread(str(source.path)))
                cv2.imwrite(f"{output}/{number}.png", ids(found))

    return job


def ids(found: dict[str, Any]) -> np.ndarray:
    """(H, W) uint8: class ids, or 1, 2, ... by falling score."""
    if "sem_seg" in found:
        return found["sem_seg"].argmax(dim=0).byte().numpy()
    instances = found["instances"]
    order = instances.scores.argsort(descending=True).tolist()
    mask = np.zeros(instances.image_size, np.uint8)
    for number in range(len(order), 0, -1):
        mask[instances.pred_masks[order[number - 1]].numpy()] = number
    return mask


def peers(folder: Path) -> dict[str, Callable[[np.ndarray], dict[str, Any]]]:
    """Detectron2's predictor on the same weights, and its steps written out."""
    cfg = seg_plugins.load_config(folder / "config.yaml")
    cfg.MODEL.CHANNELS_LAST = False
    if cfg.MODEL.META_ARCHITECTURE == "MaskRCNNFPN":
        cfg.MODEL.META_ARCHITECTURE = "GeneralizedRCNN"
        cfg.MODEL.ROI_MASK_HEAD.OUTPUT_FORMAT = "bitmask"
    predictor = DefaultPredictor(cfg)

    @torch.no_grad()
    def eager(image: np.ndarray) -> dict[str, Any]:
        height, width = image.shape[:2]
        image = image[:, :, ::-1] if cfg.INPUT.FORMAT == "RGB" else image
        image = predictor.aug.get_transform(image).apply_image(image)
        tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        return predictor.model([{"image": tensor, "height": height, "width": width}])[0]

    return {"DefaultPredictor": predictor, "eager loop": eager}


def yolo(inputs: list[str]) -> Callable[[], object]:
    """ultralytics' own pipeline, with its smallest network and the 20 best objects of an image."""
    from ultralytics import YOLO  # a peer that a user installs: AGPL

    model = YOLO("yolo11n-seg.yaml")

    def job() -> None:
        with tempfile.TemporaryDirectory() as output:
            files = [str(source.path) for source in find_sources(inputs, Path(output))]
            options = {"conf": 1e-9, "max_det": 20, "imgsz": 640, "device": "cpu"}
            found = model.predict(files, stream=True, batch=1, verbose=False, **options)
            for number, result in enumerate(found):
                masks = result.masks.data.bool().numpy()
                mask = np.zeros(masks.shape[1:], np.uint8)
                for place in range(len(masks), 0, -1):
                    mask[masks[place - 1]] = place
                size = result.orig_shape[::-1]
                mask = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)
                cv2.imwrite(f"{output}/{number}.png", mask)

    return job


def start(name: str, folder: Path, source: str, threads: int) -> tuple[float, int]:
    """Seconds of ``seg-plugins predict`` for one image, and its peak in MiB."""
    runtime, precision, file = CANDIDATES[name]
    model = ["--runtime", runtime, "--model"] if runtime else ["--config-file"]
    model.append(str(folder / file))
    with tempfile.TemporaryDirectory() as output:
        command = [sys.executable, "-c", ONE_COMMAND, "predict", *model, "--precision", precision]
        command += ["--threads", threads, "--input", source, "--output", output, "--save", "mask"]
        begin = time.perf_counter()
        done = subprocess.run(
            [str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True
        )
        seconds = time.perf_counter() - begin
    return seconds, round(int(re.search(r"VmHWM:\s+(\d+) kB", done.stdout)[1]) / 1024)


def compare(name: str, args: argparse.Namespace) -> None:
    """Print the rows of a system."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(name, folder)
        if any(CANDIDATES[candidate][2] == "int8.onnx" for candidate in args.candidates):
            prepare_int8(folder, args.input)
        jobs = {peer: loop(predict, args.input) for peer, predict in peers(folder).items()}
        if name.startswith("Mask R-CNN") and args.ultralytics:
            jobs["YOLO11n-seg (ultralytics)"] = yolo(args.input)
        for candidate in args.candidates:
            jobs[candidate] = ours(open_candidate(candidate, folder, args.threads), args.input)
        times = medians(jobs, args.repeats)
        count = len(find_sources(args.input, folder))
        for candidate, value in times.items():
            first = "- | -"
            if candidate in CANDIDATES and not args.no_start:
                source = str(find_sources(args.input, folder)[0].path)
                seconds, peak = start(candidate, folder, source, args.threads)
                first = f"{seconds:.1f} | {peak}"
            print(
                f"| {name} | {candidate} | {1e3 * count / value:.2f} | "
                f"{times['DefaultPredictor'] / value:.2f}x | {first} |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help=f"of {', '.join(SYSTEMS)}; all without one")
    parser.add_argument("--input", nargs="+", required=True, help="images or folders of them")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--candidates", nargs="+", choices=CANDIDATES, default=list(CANDIDATES))
    parser.add_argument("--no-start", action="store_true", help="leave start-up and memory out")
    args = parser.parse_args()
    if unknown := set(args.names) - set(SYSTEMS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(SYSTEMS)}")
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    for runtime, package in (("onnx", "onnxruntime"), ("openvino", "openvino")):
        if importlib.util.find_spec(package) is None:
            print(f"{package}: not installed, left out")
            # INT8 files are made by onnxruntime, whatever runs them.
            made = "int8.onnx" if runtime == "onnx" else None
            args.candidates = [
                c
                for c in args.candidates
                if runtime != CANDIDATES[c][0] and made != CANDIDATES[c][2]
            ]
    args.ultralytics = importlib.util.find_spec("ultralytics") is not None
    if not args.ultralytics:
        print("ultralytics: not installed, left out")
    print("| system | runtime | images a second | against DefaultPredictor | start, s | MiB |")
    print("|---|---|---|---|---|---|")
    for name in args.names or SYSTEMS:
        compare(name, args)


if __name__ == "__main__":
    main()
