"""The matrix reads its figures from the files of the runs, and draws what the models find."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

TOOL = Path(__file__).parents[2] / "tools" / "panoptic_matrix.py"
TINY = [
    *("SOLVER.MAX_ITER", "2", "SOLVER.IMS_PER_BATCH", "2", "SOLVER.WARMUP_ITERS", "1"),
    *("DATALOADER.NUM_WORKERS", "0", "TEST.PICTURES", "0", "DATASETS.CHECK_SAMPLES", "0"),
]


@pytest.mark.slow
def test_trains_reads_and_draws(tmp_path: Path) -> None:
    command = [sys.executable, str(TOOL), "--output", str(tmp_path), "--heads", "bottom_up", "fcn"]
    command += ["--pictures", "2", "--", *TINY]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    header, _, *rows = (
        [cell.strip() for cell in line.strip("|\n").split("|")]
        for line in (tmp_path / "matrix.md").read_text().splitlines()
    )
    assert [row[0] for row in rows] == ["bottom_up", "fcn"]
    for row in rows:
        cells = dict(zip(header, row, strict=True))
        results = json.loads(
            (tmp_path / cells["head"] / "metrics.json").read_text().splitlines()[-1]
        )
        assert cells["mIoU"] == f"{results['sem_seg/mIoU']:.1f}"
        assert cells["iterations"] == "2 x 2"
        assert float(cells["memory"].split()[0]) > 0.1
        assert float(cells["ms/image"]) > 0
    # Image, truth and two heads, at 256 pixels each.
    assert cv2.imread(str(tmp_path / "pictures.png")).shape[1] == 4 * 260
