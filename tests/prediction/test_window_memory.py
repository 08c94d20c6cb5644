"""Memory of predicting by windows does not grow with the image."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "benchmark_predict.py"


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [[], ["--objects"], ["--pieces"]], ids=["classes", "objects", "pieces"]
)
def test_the_peak_of_a_large_image_is_that_of_a_small_one(tmp_path, options):
    pytest.importorskip("rasterio")
    output = subprocess.run(
        [sys.executable, SCRIPT, "--sizes", "2000", "6000", "--folder", str(tmp_path), *options],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    peaks = [float(line.split()[4]) for line in output.splitlines()[1:]]
    assert len(peaks) == 2
    # Nine times the pixels; the larger image alone would need 180 MiB more, its scores a gigabyte.
    assert peaks[1] < 1.1 * peaks[0]


@pytest.mark.slow
def test_two_hundred_windows_use_the_memory_of_twenty(tmp_path):
    pytest.importorskip("rasterio")
    output = subprocess.run(
        [sys.executable, SCRIPT, "--soak", "200", "--folder", str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    (few, before), (many, after) = (map(float, line.split()) for line in output.splitlines()[1:])
    assert few == 20
    assert many >= 200
    assert after < 1.03 * before
