"""Several processes on the CPU (gloo, through torchrun) against one."""

from __future__ import annotations

import json
import os
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


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_several_processes_take_the_same_steps_as_one(tmp_path, custom, processes):
    """Of four, one has no image to evaluate."""
    one = run(tmp_path / "one", custom, 1)
    several = run(tmp_path / "several", custom, processes)
    assert sorted(one) == sorted(several) == [0, 1, 2, 3]
    for iteration in one:
        loss = one[iteration]["total_loss"]
        assert several[iteration]["total_loss"] == pytest.approx(loss, rel=1e-4)
    # The evaluation is shared out and gathered: the same images, each once, the same scores.
    first, second = (
        json.loads((tmp_path / name / "inference" / "sem_seg_results.json").read_text())
        for name in ("one", "several")
    )
    assert second["images"] == {"expected": 3, "scored": 3}
    scores = (run["results"]["sem_seg"]["mIoU"] for run in (first, second))
    assert next(scores) == pytest.approx(next(scores), abs=0.2)
