#!/usr/bin/env python
"""Hashes of the weights after 20 iterations with a fixed seed, of one configuration for each task.

A change that must not alter results shows the same table before and after, from the same machine:

    python tools/state_hashes.py > before.txt
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = {
    "semantic": "quickstart/deeplabv3plus_r18_shapes.yaml",
    "C4": "shapes/mask_rcnn_r18_c4.yaml",
    "FPN": "shapes/mask_rcnn_r18_fpn.yaml",
    "panoptic": "shapes/panoptic_sem_seg_fpn.yaml",
    "bottom-up": "shapes/panoptic_bottom_up.yaml",
    "patch": "quickstart/patch_classifier_shapes.yaml",
}
OPTIONS = [
    *("SOLVER.MAX_ITER", "20", "SOLVER.STEPS", "()", "SOLVER.IMS_PER_BATCH", "2"),
    *("SOLVER.WARMUP_ITERS", "5", "SOLVER.AMP.ENABLED", "False", "SEED", "1"),
    *("DATALOADER.NUM_WORKERS", "0", "DATASETS.TEST", "()", "TEST.REPORT", "False"),
    *("MODEL.DEVICE", "cpu"),
]


def state_hash(config: str) -> str:
    """SHA-256 over names and bytes of the model's state, in the order of the names."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "tools/train_net.py"), "--config-file"]
        command += [str(ROOT / "configs" / config), *OPTIONS, "OUTPUT_DIR", folder]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # sums depend on it
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
        if done.returncode:
            raise SystemExit(f"{config}: {done.stderr[-2000:]}")
        state = torch.load(Path(folder) / "model_final.pth", weights_only=True)["model"]
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(name.encode() + torch.as_tensor(value).contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[*CONFIGS, []], help="default: all")
    for name in parser.parse_args().names or CONFIGS:
        print(f"{name:10} {state_hash(CONFIGS[name])}  {CONFIGS[name]}", flush=True)
