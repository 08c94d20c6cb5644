"""`reproduce.py`: data checked, model trained, the figure compared."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from seg_plugins import SegPluginsError
from seg_plugins.zoo.published import PUBLISHED

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    spec = importlib.util.spec_from_file_location("reproduce", TOOLS / "reproduce.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(tool, monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["reproduce.py", *arguments])
    return tool.main()


def test_a_run_is_compared_with_the_expected_figure(tool, monkeypatch, tmp_path, capsys):
    folder = tmp_path / "run"
    opts = ["OUTPUT_DIR", str(folder), "SOLVER.MAX_ITER", "2", "SOLVER.IMS_PER_BATCH", "2",
            "MODEL.UNET.WIDTH", "4", "TEST.REPORT", "False", "TEST.PICTURES", "0"]  # fmt: skip
    config = "quickstart/unet_shapes.yaml"
    # Two iterations learn nothing; 100 is out of reach.
    assert run(tool, monkeypatch, "--expect", "sem_seg/mIoU=100", config, *opts) == 1
    said = capsys.readouterr().out
    assert "+ check_dataset.py --dataset shapes_train" in said
    assert "+ check_dataset.py --dataset shapes_val" in said
    assert "expected 100 (--expect) within 0.5: NOT reached" in said
    # The same run against figures around its own.
    value = tool.values(folder)["sem_seg/mIoU"]
    monkeypatch.setattr(tool, "call", lambda *command: None)
    for difference, status in ((0.9, 0), (1.1, 1), (-30, 0)):
        wanted = f"sem_seg/mIoU={value + difference}"
        arguments = ("--expect", wanted, "--tolerance", "1", config, *opts)
        assert run(tool, monkeypatch, *arguments) == status
    above = ("--expect", f"sem_seg/mIoU={value + 0.1}", "--tolerance", "0", config, *opts)
    assert run(tool, monkeypatch, *above) == 1
    with pytest.raises(SegPluginsError, match="gives sem_seg/mIoU, sem_seg/pACC, not segm/AP"):
        run(tool, monkeypatch, "--expect", "segm/AP=1", config, *opts)


def test_mistakes_are_named(tool, monkeypatch):
    with pytest.raises(SegPluginsError, match="no published figure here: give --expect"):
        run(tool, monkeypatch, "quickstart/unet_shapes.yaml")
    with pytest.raises(SegPluginsError, match="give METRIC=NUMBER"):
        run(tool, monkeypatch, "--expect", "sem_seg/mIoU", "quickstart/unet_shapes.yaml")
    monkeypatch.setattr(sys, "executable", "false")
    with pytest.raises(SegPluginsError, match=r"check_dataset\.py ended with status 1"):
        run(tool, monkeypatch, "voc/fcn8s_vgg16.yaml")


def test_the_table_of_the_zoo_page_is_the_tools(tool):
    page = (TOOLS.parent / "MODEL_ZOO.md").read_text()
    assert tool.table() in page
    # FIGURES of the papers, by hand.
    assert PUBLISHED["coco/mask_rcnn_r50_fpn_1x.yaml"].value == 35.2
    assert PUBLISHED["coco/mask_rcnn_r101_c4_3x.yaml"].value == 36.7
    assert PUBLISHED["coco/solo_v2_r50_3x.yaml"].value == 37.6
    assert "coco/mask_rcnn_r101_fpn_1x.yaml" not in PUBLISHED
