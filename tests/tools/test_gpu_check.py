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


def phases():
    return runpy.run_path(str(TOOLS / "gpu_check.py"))["phases"](Path("scratch"))


def test_the_limits_of_all_phases_are_six_minutes():
    assert sum(phase.seconds for phase in phases()) <= 360


def test_what_crashed_once_comes_before_other_tests_and_alone():
    order = [list(phase.checks) for phase in phases()]
    assert order.index(["first case"]) < next(i for i, names in enumerate(order)
                                              if "operators" in names)  # fmt: skip


def test_scripts_tests_and_configurations_of_the_checks_are_there():
    root = TOOLS.parent
    checks = [check for phase in phases() for check in phase.checks.values()]
    for word in {word for c in checks for word in (*c.command, *c.rehearsal)}:
        if word.startswith(("tools/", "tests/")):
            assert (root / word.split("::")[0]).exists(), word
        if word.endswith(".yaml"):
            assert (root / "configs" / word).exists(), word


def test_systems_of_the_checks_have_peers(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    known = runpy.run_path(str(TOOLS / "system_pairs.py"))["PAIRS"]
    assert set(runpy.run_path(str(TOOLS / "gpu_check.py"))["SYSTEMS"]) <= set(known)


def test_an_unknown_check_is_named():
    done = run("gpu_check.py", "biuld")
    assert done.returncode == 2
    assert "unknown: biuld; known: build, first case" in done.stderr


def test_a_folder_without_wheels_is_named(tmp_path):
    done = run("gpu_check.py", "--wheels", str(tmp_path))
    assert done.returncode == 2
    assert f"no wheels in {tmp_path}; gather them with --collect" in done.stderr


CRASH = "import sys, ctypes; print('before', flush=True); ctypes.string_at(0)"
WAIT = "import time; print('before', flush=True); time.sleep(60)"


@pytest.mark.parametrize(
    ("code", "seconds", "status"),
    [
        (CRASH, 20, "failed (-11)"),
        (WAIT, 1, "cut off after 1 s"),
        ("print('before')", 20, "passed"),
    ],
)
def test_a_check_that_crashes_or_hangs_is_a_result(code, seconds, status):
    result = runpy.run_path(str(TOOLS / "gpu_check.py"))["run"](
        "some", (sys.executable, "-c", code), seconds
    )
    assert result["status"] == status
    assert result["output"] == "before"


def test_a_command_that_is_not_here_is_not_possible():
    result = runpy.run_path(str(TOOLS / "gpu_check.py"))["run"]("some", ("no-such-command",), 1)
    assert result["status"] == "not possible: no-such-command is not here"


def test_a_check_is_rehearsed_and_reported(tmp_path):
    path = tmp_path / "found.jsonl"
    done = run("gpu_check.py", "--rehearse", "--json", str(path), "build")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["phase"] for line in lines] == ["machine", "build"]
    assert lines[0]["torch"] == torch.__version__
    score = "[11/28 seg_plugins.engine.run_report]: Result: segm/AP 60.00 on shapes_instance_val"
    output = f"noise\n{score}\ntimes in ms\n| a | b |\n|---|---|\n| 1 | 2 |\n3 passed in 1.20s"
    table = {"phase": "speed", "status": "passed", "seconds": 2.5, "output": output}
    with path.open("a") as file:
        print(json.dumps(table), file=file)
    report = run("gpu_report.py", str(path)).stdout
    assert (
        "| speed | passed | 2.5 | Result: segm/AP 60.00 on shapes_instance_val; 3 passed in 1.20s |"
    ) in report
    assert "## speed\n\ntimes in ms\n\n| a | b |\n|---|---|\n| 1 | 2 |\n" in report
    assert "noise" not in report
