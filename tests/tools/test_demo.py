"""`make demo` to its end, with a training of one iteration."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

DEMO = Path(__file__).resolve().parents[2] / "tools" / "demo.py"


def test_the_demo_predicts_then_trains_and_says_where_everything_is(tmp_path):
    folder = tmp_path / "output" / "demo-1"
    opts = ["SOLVER.MAX_ITER", "1", "SOLVER.IMS_PER_BATCH", "2", "TEST.REPORT_IMAGES", "0"]
    run = subprocess.run(
        [sys.executable, str(DEMO), "--output", str(folder), *opts], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
    wanted = [
        tmp_path / "output" / "nuclei" / "overlay" / "nuclei.png",
        folder / "inference" / "pictures.png",
        folder / "report.html",
    ]
    for file in wanted:
        assert file.is_file()
        assert str(file) in run.stdout
    # What predict.py takes.
    assert (folder / "config.yaml").is_file()
    assert (folder / "model_best.pth").is_file()
    assert run.stdout.rstrip().endswith("python tools/train_net.py --data my.yaml")
