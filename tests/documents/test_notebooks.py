"""The notebooks run, on the photographs beside them, and are stored without outputs."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).resolve().parents[2] / "docs/notebooks"
NAMES = ("find_nuclei", "train_further")


def run(name: str) -> tuple[str, int]:
    """Run a notebook; returns what it prints and the number of pictures that it shows."""
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(NOTEBOOKS)}}
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    printed = "".join(output.text for output in outputs if output.get("name") == "stdout")
    return printed, sum("image/png" in output.get("data", ()) for output in outputs)


def test_they_are_stored_without_outputs():
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == set(NAMES)
    for name in NAMES:
        notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
        nbformat.validate(notebook)
        for cell in notebook.cells:
            assert not cell.get("outputs")
            assert cell.get("execution_count") is None


def test_the_photographs_are_few_and_differ():
    files = sorted((NOTEBOOKS / "nuclei").rglob("*.*"))
    assert sum(path.stat().st_size for path in files if path.is_file()) < 300_000
    images = [path for path in files if path.suffix == ".png"]
    assert len({hashlib.sha256(path.read_bytes()).digest() for path in images}) == 8


@pytest.mark.slow
def test_finding_nuclei():
    printed, pictures = run("find_nuclei")
    assert pictures == 2
    counts = re.findall(r"(\d+) found, (\d+) annotated", printed)
    assert [int(there) for _, there in counts] == [28, 49, 46, 15, 15, 8, 11, 6]
    assert sum(abs(int(found) - int(there)) for found, there in counts) < 40
    scores = [float(score) for score in re.findall(r"mask AP ([\d.]+)", printed)]
    assert len(scores) == 2
    assert min(scores) > 45  # 60.5 on all 24 images that the model was held back from


@pytest.mark.slow
def test_training_further():
    printed, pictures = run("train_further")
    assert pictures == 2
    before, after = re.findall(r"mask AP ([\d.]+) before, ([\d.]+) after 12 iterations", printed)[0]
    assert float(before) > 45
    assert float(after) > float(before) - 10  # it is not ruined
