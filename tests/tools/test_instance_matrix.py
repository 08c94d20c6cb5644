"""The matrix of instance systems reads its figures from the runs, times and draws them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

TOOL = Path(__file__).parents[2] / "tools" / "instance_matrix.py"
TINY = [
    *("SOLVER.MAX_ITER", "2", "SOLVER.IMS_PER_BATCH", "2", "SOLVER.WARMUP_ITERS", "1"),
    *("DATALOADER.NUM_WORKERS", "0", "TEST.PICTURES", "0", "DATASETS.CHECK_SAMPLES", "0"),
    *("SOLVER.AMP.ENABLED", "False"),
]


@pytest.mark.slow
def test_trains_reads_times_and_draws(tmp_path: Path) -> None:
    command = [sys.executable, str(TOOL), "--output", str(tmp_path), "--seeds", "1", "2"]
    command += ["--systems", "solo", "mask_rcnn_fpn", "--pictures", "2", "--repeats", "2"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*command, "--", *TINY], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]
    header, _, *rows = (
        [cell.strip() for cell in line.strip("|\n").split("|")]
        for line in (tmp_path / "matrix.md").read_text().splitlines()
    )
    assert [row[0] for row in rows] == ["solo", "mask_rcnn_fpn"]
    for row in rows:
        cells = dict(zip(header, row, strict=True))
        runs = [tmp_path / cells["system"] / f"seed_{seed}" for seed in (1, 2)]
        found = [json.loads((run / "metrics.json").read_text().splitlines()[-1]) for run in runs]
        values = [figures["segm/AP"] for figures in found]
        mean = f"{sum(values) / 2:.1f} ({min(values):.1f} to {max(values):.1f})"
        assert (cells["seeds"], cells["AP"]) == ("2", mean)
        assert cells["iterations"] == "2 x 2"
        assert float(cells["memory"].split()[0]) > 0.1
        assert float(cells["ms/image"]) > 0
    # Image, truth and two systems, at 256 pixels each.
    assert cv2.imread(str(tmp_path / "pictures.png")).shape[1] == 4 * 260
