#!/usr/bin/env python
"""What a runtime and bfloat16 cost of a run's metrics: the model beside its exported file.

    python tools/runtime_metrics.py output/run --threads 2
    python tools/runtime_metrics.py output/run MODEL.WEIGHTS zoo://nuclei

Evaluates the run on its first test set by PyTorch in float32 and bfloat16, and its ONNX file by
each runtime that is installed, OpenVINO in both. Prints the main figures of each. A run is a folder
with config.yaml and model_final.pth, or a configuration with weights among the options.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
from pathlib import Path
from typing import Any

from seg_plugins.engine import Trainer
from seg_plugins.evaluation import build_evaluator
from seg_plugins.export import export_model
from seg_plugins.export.metric import main_figures
from seg_plugins.runtime import FileModel

import run_matrix
import torch
from torch import nn

# name -> runtime ("": PyTorch), precision
CANDIDATES = {
    "torch": ("", "float32"),
    "torch bf16": ("", "bfloat16"),
    "onnx": ("onnx", "float32"),
    "openvino": ("openvino", "float32"),
    "openvino bf16": ("openvino", "bfloat16"),
}
PACKAGES = {"": "torch", "onnx": "onnxruntime", "openvino": "openvino"}


@torch.no_grad()
def figures(cfg: Any, model: nn.Module, samples: list, precision: str) -> dict[str, float]:
    """The main figures of a model on the first test set."""
    evaluator = build_evaluator(cfg, cfg.DATASETS.TEST[0])
    evaluator.reset()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        for batch in samples:
            evaluator.process(batch, model(batch))
    return main_figures(evaluator.evaluate())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of a run, or a configuration")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("opts", nargs="*", help="KEY VALUE, as of train_net.py")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cfg, model = run_matrix.load(args.run, args.opts)
    samples = list(Trainer.build_test_loader(cfg, cfg.DATASETS.TEST[0]))
    with tempfile.TemporaryDirectory() as folder:
        exported = export_model(cfg, model, "onnx", Path(folder), report=lambda line: None).path
        for name, (runtime, precision) in CANDIDATES.items():
            if importlib.util.find_spec(PACKAGES[runtime]) is None:
                print(f"{name}: {PACKAGES[runtime]} is not installed, left out")
                continue
            found = model
            if runtime:
                options = {"threads": args.threads, "precision": precision}
                found = FileModel.open(exported, runtime, **options)
            # A file has its precision by its runtime.
            values = figures(cfg, found, samples, "float32" if runtime else precision)
            text = ", ".join(f"{key} {value:.2f}" for key, value in values.items())
            print(f"{name}: {text}", flush=True)


if __name__ == "__main__":
    main()
