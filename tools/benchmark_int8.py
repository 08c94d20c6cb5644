#!/usr/bin/env python
"""INT8 files of a run beside NNCF's, OpenVINO's own quantisation: metric and processor's time.

    python tools/benchmark_int8.py RUN --calibrate camvid_train
    python tools/benchmark_int8.py RUN --calibrate my_train DATASETS.CUSTOM my.yaml

Exports the run's model_final.pth in float32 and INT8 as export_model.py does (with any loss, no
layer kept in float) and gives NNCF the float32 OpenVINO file with the same images. Prints for each
file the main metrics on the run's first test set and the median of the processor's milliseconds for
an image, all files in turns. Needs onnxruntime, openvino and nncf; what is missing is named.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from seg_plugins.engine import Trainer
from seg_plugins.export import ExportOptions, export_model
from seg_plugins.export.export import CALIBRATION_IMAGES
from seg_plugins.export.metric import Metrics
from seg_plugins.export.systems import tensor_system
from seg_plugins.runtime import FileModel

import numpy as np
import run_matrix
import torch
from runtime_metrics import figures

RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("run", type=Path, help="folder of a run")
    add("--calibrate", required=True, metavar="DATASET", help="whose images set the ranges")
    add("--threads", type=int, default=1)
    add("--repeats", type=int, default=32, help="images timed (default: 32)")
    add("opts", nargs="*", help="KEY VALUE, as of train_net.py")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cfg, model = run_matrix.load(args.run, args.opts)
    samples = list(Trainer.build_test_loader(cfg, cfg.DATASETS.TEST[0]))
    with tempfile.TemporaryDirectory() as folder:
        files = export_all(cfg, model, args.calibrate, Path(folder))
        opened = {
            name: FileModel.open(
                path, name.split()[0].replace("nncf", "openvino"), threads=args.threads
            )
            for name, path in files.items()
        }
        times = milliseconds(opened, samples, args.repeats)
        for name, found in opened.items():
            values = figures(cfg, found, samples, "float32")
            text = ", ".join(f"{key} {value:.2f}" for key, value in values.items())
            print(f"{name}: {text}, {times[name]:.1f} ms", flush=True)


def export_all(cfg: Any, model: Any, calibrate: str, folder: Path) -> dict[str, Path]:
    """Files by name; the first word is the runtime, or nncf."""
    int8 = ExportOptions(int8=calibrate, verify_on=cfg.DATASETS.TEST[0], max_loss=100.0)
    files = {}
    for kind, package in RUNTIMES.items():
        if importlib.util.find_spec(package) is None:
            print(f"{package} is not installed: left out")
            continue
        for name, options in ((kind, ExportOptions()), (f"{kind} int8", int8)):
            made = export_model(cfg, model, kind, folder / name, options=options, report=quiet)
            files[name] = made.path
    if importlib.util.find_spec("nncf") is None or "openvino" not in files:
        print("nncf or openvino is not installed: left out")
        return files
    import nncf
    import openvino

    network = openvino.Core().read_model(files["openvino"])
    rank = len(network.input().partial_shape)
    samples = Metrics(cfg, tensor_system(cfg, model, "openvino"), calibrate).samples(
        CALIBRATION_IMAGES
    )
    images = [as_input(sample, rank) for sample in samples]
    quantised = nncf.quantize(network, nncf.Dataset(images), subset_size=len(images))
    files["nncf int8"] = folder / "nncf" / "model.xml"
    openvino.save_model(quantised, files["nncf int8"], compress_to_fp16=False)
    return files


def as_input(sample: dict[str, Any], rank: int) -> np.ndarray:
    """A sample's image as a file takes it: (C, H, W), or (1, C, H, W)."""
    image = sample["image"].float().numpy()
    return image[None] if rank == 4 else image


def milliseconds(opened: dict[str, FileModel], samples: list, count: int) -> dict[str, float]:
    """Medians of the processor's time of an image, all files in turns."""
    times: dict[str, list[float]] = {name: [] for name in opened}
    for i in range(count):
        for name, found in opened.items():
            image = as_input(samples[i % len(samples)][0], found.engine.rank)
            start = time.process_time()
            found.engine.run(image)
            times[name].append(time.process_time() - start)
    return {name: 1000 * statistics.median(values) for name, values in times.items()}


def quiet(line: str) -> None:
    """Takes the lines of an export."""


if __name__ == "__main__":
    main()
