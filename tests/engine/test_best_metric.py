"""The figure that decides what is best is known, with its direction, before training."""

from __future__ import annotations

import math
from types import SimpleNamespace

import seg_plugins
from seg_plugins.config import ConfigError
from seg_plugins.data.datasets.shapes import ensure_shapes
from seg_plugins.engine.checks.best_metric import BestMetric, find_best_metric
from seg_plugins.engine.hooks import BestCheckpoint
from seg_plugins.evaluation import ElectronMicroscopyEvaluator, build_evaluator

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, SemSegEvaluator
from PIL import Image

TWO = "('shapes_val', 'shapes_train')"


def found(*opts, evaluators=None):
    ensure_shapes()
    cfg = seg_plugins.load_config("configs/quickstart/deeplabv3plus_r18_shapes.yaml", list(opts))
    names = cfg.DATASETS.TEST
    return find_best_metric(cfg, evaluators or {n: build_evaluator(cfg, n) for n in names})


def test_the_main_figure_of_the_task_unless_named():
    assert found() == BestMetric("sem_seg/mIoU", True)
    assert found("TEST.BEST_METRIC", "sem_seg/IoU-disc") == BestMetric("sem_seg/IoU-disc", True)


def test_several_test_sets():
    assert found("DATASETS.TEST", TWO) == BestMetric("shapes_val/sem_seg/mIoU", True)
    second = "shapes_train/sem_seg/pACC"
    assert found("DATASETS.TEST", TWO, "TEST.BEST_METRIC", second) == BestMetric(second, True)
    with pytest.raises(ConfigError, match="shapes_val/sem_seg/mIoU, shapes_train/sem_seg/mIoU"):
        found("DATASETS.TEST", TWO, "TEST.BEST_METRIC", "sem_seg/mIoU")


@pytest.mark.parametrize("wrong", ["mIoU", "sem_seg/miou", "segm/AP", "validation/total_loss"])
def test_a_figure_that_nothing_gives_is_refused_with_those_that_are_given(wrong):
    with pytest.raises(ConfigError, match=f"BEST_METRIC {wrong} is given by no .*sem_seg/mIoU"):
        found("TEST.BEST_METRIC", wrong)


def test_losses_count_where_they_are_computed():
    opts = ("TEST.LOSS", "True", "TEST.BEST_METRIC")
    for name in ("validation/total_loss", "validation/loss_sem_seg"):
        assert found(*opts, name) == BestMetric(name, False)


def test_a_model_is_judged_by_what_it_predicts():
    """A panoptic dataset has the truth of three tasks, Mask R-CNN solves one."""
    opts = ["DATASETS.TEST", "('shapes_panoptic_val',)"]
    cfg = seg_plugins.load_config("configs/shapes/mask_rcnn_r18_fpn.yaml", opts)
    evaluators = {"shapes_panoptic_val": build_evaluator(cfg, "shapes_panoptic_val")}
    assert find_best_metric(cfg, evaluators) == BestMetric("segm/AP", True)
    cfg.MODEL.MASK_ON = False
    assert find_best_metric(cfg, evaluators) == BestMetric("bbox/AP", True)
    cfg.TEST.BEST_METRIC = "panoptic_seg/PQ"
    with pytest.raises(ConfigError, match=r"panoptic_seg/PQ is given by no evaluation.*bbox/AP"):
        find_best_metric(cfg, evaluators)


def test_an_evaluator_that_does_not_say_what_it_gives(caplog):
    ensure_shapes()
    theirs = {"shapes_val": SemSegEvaluator("shapes_val", distributed=False)}
    assert found(evaluators=theirs) == BestMetric("sem_seg/mIoU", True)
    best = found("TEST.BEST_METRIC", "sem_seg/mIoU", evaluators=theirs)
    assert best == BestMetric("sem_seg/mIoU", True)
    assert "does not declare its figures" in caplog.text


def test_of_the_usual_figures_the_first_that_comes_decides():
    """Detectron2's COCOEvaluator alone, on a panoptic system: no PQ is measured."""
    cfg = seg_plugins.load_config("configs/shapes/panoptic_fcn.yaml")
    best = find_best_metric(cfg, {"shapes_panoptic_val": DatasetEvaluator()})
    assert best.name == "panoptic_seg/PQ"
    assert best.others == ("segm/AP", "bbox/AP", "sem_seg/mIoU")
    saved = []
    hook = BestCheckpoint(SimpleNamespace(save=lambda *a, **k: saved.append(k)), cfg, best)
    latest = {"bbox/AP": (20.0, 9), "segm/AP": (10.0, 9)}
    hook.trainer = SimpleNamespace(iter=9, storage=SimpleNamespace(latest=lambda: latest))
    hook.after_step()
    assert (hook.best, len(saved)) == (10.0, 1)


def test_errors_of_electron_microscopy_are_better_when_lower(tmp_path):
    Image.fromarray(np.eye(8, dtype=np.uint8)).save(tmp_path / "a.png")
    record = {"file_name": "a", "sem_seg_file_name": str(tmp_path / "a.png")}
    DatasetCatalog.register("membranes", lambda: [record])
    MetadataCatalog.get("membranes").set(stuff_classes=["membrane", "cell"], ignore_label=255)
    try:
        metrics = ElectronMicroscopyEvaluator("membranes").metrics()
    finally:
        DatasetCatalog.remove("membranes")
        MetadataCatalog.remove("membranes")
    errors = {name for name in metrics if name.startswith("em/")}
    assert {"em/RandError", "em/WarpingError", "em/VariationOfInformation"} <= errors
    assert len(errors) == 8
    assert all(higher is (name not in errors) for name, higher in metrics.items())


def test_a_resumed_run_forgets_the_best_of_another_metric(caplog):
    cfg = seg_plugins.get_cfg()
    loss, miou = BestMetric("validation/total_loss", False), BestMetric("sem_seg/mIoU", True)
    before = BestCheckpoint(None, cfg, miou)
    before.best, before.without_gain = 61.5, 2
    same, other = BestCheckpoint(None, cfg, miou), BestCheckpoint(None, cfg, loss)
    for hook in (same, other):
        hook.load_state_dict(before.state_dict())
    assert (same.best, same.without_gain) == (61.5, 2)
    assert (other.best, other.without_gain) == (-math.inf, 0), "no loss is below -61.5"
    assert "which was sem_seg/mIoU" in caplog.text


def test_of_several_test_sets_the_name_says_which_gives_the_figure():
    """An evaluator that does not declare its figures is no excuse for those of another set."""
    opts = ["DATASETS.TEST", TWO, "TEST.BEST_METRIC"]
    theirs = {
        "shapes_val": build_evaluator(seg_plugins.get_cfg(), "shapes_val"),
        "shapes_train": SemSegEvaluator("shapes_train", distributed=False),
    }
    for wrong in ("sem_seg/mIoU", "shapes_val/segm/AP"):
        with pytest.raises(ConfigError, match=r"given by no .*: shapes_val/sem_seg/mIoU, .*pACC"):
            found(*opts, wrong, evaluators=theirs)
    undeclared = "shapes_train/sem_seg/fwIoU"
    assert found(*opts, undeclared, evaluators=theirs) == BestMetric(undeclared, True)
