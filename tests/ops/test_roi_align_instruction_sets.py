"""RoIAlign's CPU kernels for the instruction sets that the running processor would not choose."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from seg_plugins.ops import backend_report

import pytest
import torch

CSRC = Path(__file__).resolve().parents[2] / "seg_plugins" / "ops" / "csrc"
SOURCE = Path(__file__).with_name("roi_align_instruction_sets.cpp")
# Rounding of a sum of four, and once more to the type that is stored.
TOLERANCE = {"double": 1e-15, "float": 5e-7, "bfloat16": 2**-8, "half": 2**-11}


def test_every_instruction_set_gives_the_plain_sum(tmp_path):
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        pytest.skip("no C++ compiler")
    folder = Path(torch.__file__).parent
    program = tmp_path / "instruction_sets"
    subprocess.run(
        [compiler, "-std=c++20", "-O2", "-Wno-psabi", f"-I{CSRC}", f"-I{folder / 'include'}",
         str(SOURCE), "-o", str(program)],
        check=True,
    )  # fmt: skip
    output = subprocess.run([program], check=True, stdout=subprocess.PIPE, text=True).stdout
    rows = [line.split() for line in output.splitlines()]
    assert len(rows) % 20 == 0
    report = str(backend_report())
    # A processor with AVX-512 has AVX2.
    sets = ("avx2", "avx512") if "avx512" in report else ("avx2",) if "avx2" in report else ()
    assert {row[0] for row in rows} == {"baseline", *sets}
    for name, dtype, channels, error, same in rows:
        assert float(error) <= TOLERANCE[dtype], (name, dtype, channels)
        assert same == "1", (name, dtype, channels)
