"""What a run's record says of where it comes from."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import seg_plugins
from seg_plugins.engine import provenance

import pytest


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train.py", "--config-file", "a b.yaml"], "train.py --config-file 'a b.yaml' SEED 7"),
        (["train.py", "--resume", "SOLVER.MAX_ITER", "3"], "train.py SOLVER.MAX_ITER 3 SEED 7"),
        (["train.py", "SEED", "7"], "train.py SEED 7"),
        (["train.py", "SEED", "-1"], "train.py SEED -1 SEED 7"),
        (
            [str(Path(seg_plugins.__file__).with_name("__main__.py")), "train", "--data", "a.yaml"],
            "python -m seg_plugins train --data a.yaml SEED 7",
        ),
    ],
)
def test_the_repeating_command_names_the_seed(arguments, expected):
    assert provenance.repeating(arguments, 7) == expected


def test_the_commit_is_that_of_the_checkout(tmp_path, monkeypatch):
    package = tmp_path / "seg_plugins" / "__init__.py"
    package.parent.mkdir()
    package.write_text("")
    monkeypatch.setattr(seg_plugins, "__file__", str(package))
    assert provenance.code_version() == {"version": seg_plugins.__version__}
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    commit = head.stdout[:12]
    assert provenance.code_version()["commit"] == commit
    package.write_text("x = 1")
    assert provenance.code_version()["commit"] == f"{commit}-dirty"


def test_the_version_stands_in_one_place():
    root = Path(seg_plugins.__file__).parents[1]
    if not (root / "setup.py").is_file():
        pytest.skip("not a checkout")
    assert not re.search(r"version=\"\d", (root / "setup.py").read_text())
    assert f"version: {seg_plugins.__version__}" in (root / "CITATION.cff").read_text()
