from __future__ import annotations

import json
from pathlib import Path

from seg_plugins import load_config
from seg_plugins.engine import Trainer, run_report, setup
from seg_plugins.visualization.examples import _extremes

import pytest
from detectron2.modeling import build_model
from detectron2.utils.logger import setup_logger


@pytest.fixture
def trained(tiny_args):
    """Trains three iterations with these options; returns the run folder."""

    def train(*opts: str) -> Path:
        cfg = setup(tiny_args("TEST.REPORT", "True", "TEST.REPORT_IMAGES", "1", *opts))
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=False)
        trainer.train()
        return Path(cfg.OUTPUT_DIR)

    yield train
    setup_logger(name="seg_plugins")


def test_a_training_ends_with_a_report(trained):
    run = trained()
    page = (run / "report.html").read_text()
    for part in (
        "total loss",
        "learning rate",
        "Confusion",
        "middle",
        "worst images",
        "best images",
    ):
        assert part in page, part
    assert "Not everything could be shown" not in page
    worst, best = json.loads((run / "inference/examples/examples.json").read_text())
    assert (worst["rank"], best["rank"]) == ("worst", "best")
    assert worst["score"] <= best["score"]
    assert set(worst["pictures"]) == {"image", "truth", "prediction", "error"}
    assert len(page) < 2_000_000


def test_a_failing_part_is_an_error_in_log_and_page_but_not_of_the_training(trained, monkeypatch):
    def fail(*_):
        raise RuntimeError("no <memory>")

    monkeypatch.setattr(run_report, "write_examples", fail)
    run = trained()
    assert (run / "model_final.pth").is_file()
    assert (run / "run.json").is_file()
    page = (run / "report.html").read_text()
    assert "The pictures could not be made: RuntimeError: no &lt;memory&gt;" in page
    assert "RuntimeError: no <memory>" in (run / "log.txt").read_text()


def test_it_can_be_turned_off(trained):
    assert not (trained("TEST.REPORT", "False") / "report.html").exists()


def test_the_system_table_counts_mask_rcnn_and_names_what_it_cannot_count(tmp_path):
    cfg = load_config("shapes/mask_rcnn_r18_fpn.yaml", ["MODEL.DEVICE", "cpu"])
    model = build_model(cfg)
    run_report._write_system(cfg, model, tmp_path / "system.json")
    content = json.loads((tmp_path / "system.json").read_text())
    assert content["size"] == [128, 128]
    total = content["rows"][-1]
    assert total["parameters"] == sum(p.numel() for p in model.parameters())
    assert total["multiply_adds"] > 1e9
    assert [row["regions"] for row in content["rows"]] == [None, None, 200, 100, None]

    cfg.MODEL.META_ARCHITECTURE = "ProposalNetwork"
    run_report._write_system(cfg, build_model(cfg), tmp_path / "system.json")
    (*parts, total) = json.loads((tmp_path / "system.json").read_text())["rows"]
    assert [row["name"] for row in parts] == ["backbone", "proposal_generator"]
    assert total["parameters"] == sum(row["parameters"] for row in parts)
    assert "multiply_adds" not in total


def test_parameters_remain_in_the_system_table_where_nothing_else_can_be_counted(
    tmp_path, monkeypatch
):
    cfg = load_config(
        "shapes/mask_rcnn_r18_fpn.yaml",
        ["MODEL.DEVICE", "cpu", "MODEL.META_ARCHITECTURE", "GeneralizedRCNN",
         "MODEL.PROPOSAL_GENERATOR.NAME", "PrecomputedProposals"],
    )  # fmt: skip
    model, path = build_model(cfg), tmp_path / "system.json"
    run_report._write_system(cfg, model, path)
    names = ["backbone", "roi_heads", "total"]
    assert [row["name"] for row in json.loads(path.read_text())["rows"]] == names

    def fail(*_):
        raise RuntimeError("of the model's own code")

    path.unlink()
    monkeypatch.setattr(run_report, "analyze", fail)
    with pytest.raises(RuntimeError):
        run_report._write_system(cfg, model, path)
    rows = json.loads(path.read_text())["rows"]
    assert [row["name"] for row in rows] == names
    assert rows[-1]["parameters"] == sum(p.numel() for p in model.parameters())


def test_no_image_is_both_worst_and_best():
    ranked = [{"score": i} for i in range(3)]
    found = [(rank, line["score"]) for rank, line in _extremes(ranked, 5)]
    assert found == [("worst", 0), ("worst", 1), ("best", 2)]
