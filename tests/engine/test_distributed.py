"""Several processes on the CPU (gloo, through torchrun) against one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_run import TINY

ROOT = Path(__file__).resolve().parents[2]
# No batch statistics, no dropout, no augmentation; uneven numbers of valid pixels per image.
EXACT = [
    *("MODEL.TIMM.NORM", "GN", "MODEL.SEM_SEG_HEAD.NORM", "GN", "INPUT.RANDOM_FLIP", "none"),
    *("MODEL.SEM_SEG_HEAD.ASPP_DROPOUT", "0.0", "SOLVER.IMS_PER_BATCH", "4"),
    *("MODEL.SEM_SEG_HEAD.ASPP_CHANNELS", "32", "MODEL.SEM_SEG_HEAD.CONVS_DIM", "32"),
    *("MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS", "[32]"),
    *("MODEL.SEM_SEG_HEAD.LOSS_TYPE", "cross_entropy"),  # Dice is taken over each process's batch
    *("SOLVER.MAX_ITER", "4", "SOLVER.OPTIMIZER", "SGD", "SOLVER.BASE_LR", "0.05"),
]


def run(folder: Path, custom: Path, processes: int) -> dict[int, float]:
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    opts = [*TINY, *EXACT, "DATASETS.CUSTOM", str(custom), "OUTPUT_DIR", str(folder)]
    result = subprocess.run(
        [
            *command,
            str(ROOT / "tools" / "train_net.py"),
            *("--config-file", "quickstart/deeplabv3plus_r18_shapes.yaml", "--num-gpus", "0"),
            *opts,
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    lines = map(json.loads, (folder / "metrics.json").read_text().splitlines())
    return {line["iteration"]: line for line in lines if "total_loss" in line}


@pytest.fixture
def custom(tiny_semantic, tmp_path):
    """The tiny dataset as a user would describe it: other processes know nothing of ours."""
    source = Path(os.environ["DETECTRON2_DATASETS"]) / "tiny_semantic"
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for file in source.glob("*_[0-9].png"):
        shutil.copy(file, tmp_path / "images")
        shutil.copy(source / f"{file.stem}_label.png", tmp_path / "masks" / file.name)
    description = tmp_path / "custom.yaml"
    description.write_text(
        "name: tiny_custom\ntask: semantic\nclasses: [dark, middle, bright]\n"
        "images: images\nmasks: masks\nimage_suffix: .png\nmask_suffix: .png\n"
        "split: {val_fraction: 0.25, seed: 0}\n"
    )
    return description


def test_two_processes_take_the_same_steps_as_one(tmp_path, custom):
    one = run(tmp_path / "one", custom, 1)
    two = run(tmp_path / "two", custom, 2)
    assert sorted(one) == sorted(two) == [0, 1, 2, 3]
    for iteration in one:
        assert two[iteration]["total_loss"] == pytest.approx(one[iteration]["total_loss"], rel=1e-4)
    # The evaluation is shared out and gathered: the same images, each once, the same scores.
    first, second = (
        json.loads((tmp_path / name / "inference" / "sem_seg_results.json").read_text())
        for name in ("one", "two")
    )
    assert second["images"] == {"expected": 3, "scored": 3}
    scores = (run["results"]["sem_seg"]["mIoU"] for run in (first, second))
    assert next(scores) == pytest.approx(next(scores), abs=0.2)
