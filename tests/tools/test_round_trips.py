"""The round trips say what each form of a mask can reach."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "round_trips.py"


@pytest.mark.slow
def test_rays_lose_the_rings_and_finer_grids_lose_less() -> None:
    done = subprocess.run(
        [sys.executable, str(TOOL), "--images", "6"], capture_output=True, text=True, check=True
    )
    lines = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if "|" in line]
    table = {row[0]: dict(zip(lines[0], row, strict=True)) for row in lines[2:]}
    iou = {
        form: {name: float(cell.split(",")[0]) for name, cell in row.items() if "," in cell}
        for form, row in table.items()
    }
    assert set(iou) == {"36 rays", "stride 4", "stride 2"}
    assert re.match(r"\d+ objects of 6 images of shapes_instance_val", done.stdout)
    # A ring of which the hole is filled: the share of its own area.
    assert 0.5 < iou["36 rays"]["ring"] < 0.75 < iou["stride 4"]["ring"]
    assert iou["36 rays"]["triangle"] > 0.94
    assert all(iou["stride 2"][name] > iou["stride 4"][name] for name in iou["stride 4"])
