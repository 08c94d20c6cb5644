"""The command itself: its help, its exit status, its errors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def train_net(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "tools" / "train_net.py"), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_help_explains_each_flag_and_shows_examples():
    text = train_net("--help").stdout
    for flag in ("--config-file", "--resume", "--eval-only", "--num-gpus", "--num-machines",
                 "--machine-rank", "--dist-url", "KEY VALUE"):  # fmt: skip
        assert flag in text
    assert "examples:" in text
    assert text.count("--config-file configs/") >= 2


def test_a_mistake_is_one_line_and_a_failing_exit_status(tmp_path):
    result = train_net(
        *("--config-file", "quickstart/deeplabv3plus_r18_shapes.yaml"),
        *("OUTPUT_DIR", str(tmp_path / "run"), "SOLVER.MAX_ITERS", "3"),
    )
    assert result.returncode == 1
    message = result.stderr.strip().splitlines()[-1]
    assert message.startswith("error: the command line: unknown key SOLVER.MAX_ITERS")
    assert message.endswith("Did you mean SOLVER.MAX_ITER?")
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run").exists()


def test_more_gpus_than_there_are_is_explained(tmp_path):
    result = train_net("--config-file", "x.yaml", "--num-gpus", "99")
    assert result.returncode == 1
    assert "--num-gpus 99: this machine has" in result.stderr
