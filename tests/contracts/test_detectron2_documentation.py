"""The snippets for Detectron2's own users run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(
    ("page", "heading", "expected"),
    [
        ("mask_rcnn.md", "LazyConfig", "type(system.roi_heads.box_pooler).__name__"),
        (
            "semantic_systems.md",
            "In a Detectron2 configuration of your own",
            "type(model.sem_seg_head).__name__",
        ),
    ],
)
def test_a_snippet_runs(page, heading, expected):
    section = (DOCS / page).read_text("utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    (snippet,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    code = f"{snippet}\nprint({expected})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[-1] in ("FusedROIPooler", "SemSegDeepLabV3PlusHead")
