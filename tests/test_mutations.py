"""The planted faults fit the code that stands there, and some of them are planted."""

from __future__ import annotations

import subprocess
import sys

import pytest
from mutations import MUTATIONS, NAMES, ROOT


@pytest.mark.parametrize("mutation", MUTATIONS, ids=NAMES)
def test_each_fault_changes_one_place_and_is_python(mutation):
    compile(mutation.source(), mutation.file, "exec")
    assert (ROOT / "tests" / "evaluation" / f"{mutation.tests}.py").is_file()


def test_names_are_told_apart():
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.slow
def test_faults_are_caught_and_the_test_is_named():
    names = ["pq-void-in-the-union", "band-one-pixel-wider", "recall-is-precision"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.mutations", *names],
        cwd=ROOT, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| panoptic_quality.py | `test_panoptic.py::" in done.stdout
    assert "3 of 3 faults are caught." in done.stdout
