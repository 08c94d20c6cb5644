"""The check of a machine with a GPU: what it does without one, and the report of its results."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

TOOLS = Path(__file__).resolve().parents[2] / "tools"


def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOLS / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_without_a_gpu_it_says_so_and_writes_nothing(tmp_path):
    done = run("gpu_check.py", "--json", str(tmp_path / "found.jsonl"))
    assert done.returncode == 1
    assert "GPU: not run" in done.stdout
    assert not list(tmp_path.iterdir())


def test_the_limits_of_all_phases_are_six_minutes():
    phases = runpy.run_path(str(TOOLS / "gpu_check.py"))["PHASES"]
    assert sum(phase.seconds for phase in phases.values()) <= 360


def test_an_unknown_phase_is_named():
    done = run("gpu_check.py", "biuld")
    assert done.returncode == 2
    assert "unknown: biuld; known: build, operators" in done.stderr


def test_a_phase_is_rehearsed_and_reported(tmp_path):
    path = tmp_path / "found.jsonl"
    done = run("gpu_check.py", "--rehearse", "--json", str(path), "build", "memcheck")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["phase"] for line in lines] == ["machine", "build"]  # memcheck needs a GPU
    assert lines[0]["torch"] == torch.__version__
    output = "noise\ntimes in ms\n| a | b |\n|---|---|\n| 1 | 2 |\n3 passed in 1.20s"
    table = {"phase": "speed", "status": "passed", "seconds": 2.5, "output": output}
    with path.open("a") as file:
        print(json.dumps(table), file=file)
    report = run("gpu_report.py", str(path)).stdout
    assert "| speed | passed | 2.5 | 3 passed in 1.20s |" in report
    assert "## speed\n\ntimes in ms\n\n| a | b |\n|---|---|\n| 1 | 2 |\n" in report
    assert "noise" not in report
