"""The command prints one row a part, or the reason why there is no table."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

TOOL = str(Path(__file__).parents[2] / "tools" / "analyze_model.py")


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["analyze_model.py", "--config-file", *arguments])
    runpy.run_path(TOOL, run_name="__main__")


def test_a_table(monkeypatch, capsys):
    call(monkeypatch, "isbi2012/unet_valid.yaml", "--size", "64", "64")
    size, _, *rows, published = capsys.readouterr().out.splitlines()
    assert size == "one image of 64 x 64"
    assert [row.split()[0] for row in rows] == ["backbone", "sem_seg_head", "total"]
    assert rows[-1].split()[1] == published.split()[1] == "31,030,658"


def test_what_cannot_be_counted_is_said_instead(monkeypatch, capsys):
    options = ["MODEL.META_ARCHITECTURE", "GeneralizedRCNN"]
    options += ["MODEL.PROPOSAL_GENERATOR.NAME", "PrecomputedProposals"]
    with pytest.raises(SystemExit, match=r"error: GeneralizedRCNN cannot .* PrecomputedProposals"):
        call(monkeypatch, "shapes/mask_rcnn_r18_fpn.yaml", *options)
    assert not capsys.readouterr().out
