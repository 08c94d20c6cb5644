"""An evaluator and a mapper of somebody else's: registered in one place, used in every other."""

from __future__ import annotations

import json
from pathlib import Path

from seg_plugins.config import ConfigError
from seg_plugins.data import MAPPER_REGISTRY, Dataset, SemanticMapper, build_mapper
from seg_plugins.data.doctor import check_dataset
from seg_plugins.engine import Trainer, setup
from seg_plugins.evaluation import EVALUATOR_REGISTRY, EvaluationError, build_evaluator
from seg_plugins.prediction import Predictor
from seg_plugins.tasks import UnknownTaskError, known_evaluators, task_of_evaluator

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils.logger import setup_logger


class Darkness(DatasetEvaluator):
    """The share of the pixels that are called dark, in Detectron2's interface alone."""

    def __init__(self, *_):
        self.reset()

    def metrics(self):
        return {"darkness/share": False, "darkness/images": True}

    def reset(self):
        self.shares = []

    def process(self, inputs, outputs):
        self.shares += [(o["sem_seg"].argmax(0) == 0).float().mean().item() for o in outputs]

    def evaluate(self):
        share = sum(self.shares) / len(self.shares)
        return {"darkness": {"share": share, "images": float(len(self.shares))}}


class DoublingMapper(SemanticMapper):
    """Twice the brightness; what SemanticMapper's samples allow, its own allow too."""

    def __call__(self, dataset_dict, rng=None):
        sample = super().__call__(dataset_dict, rng)
        return sample | {"image": sample["image"].float().mul(2).clamp(max=255)}


@pytest.fixture
def own(tiny_semantic):
    """A test set of the type ``darkness``, registered for the time of a test."""
    EVALUATOR_REGISTRY.register("darkness", task="semantic")(Darkness)
    MAPPER_REGISTRY.register(DoublingMapper)
    DatasetCatalog.register("own_test", lambda: DatasetCatalog.get(tiny_semantic[1]))
    known = MetadataCatalog.get(tiny_semantic[1]).as_dict()
    kept = {key: known[key] for key in ("stuff_classes", "stuff_colors", "ignore_label")}
    MetadataCatalog.get("own_test").set(**kept, evaluator_type="darkness")
    yield ("DATASETS.TEST", "('own_test',)", "INPUT.MAPPER", "DoublingMapper")
    setup_logger(name="seg_plugins")
    DatasetCatalog.remove("own_test")
    MetadataCatalog.remove("own_test")
    del EVALUATOR_REGISTRY._obj_map["darkness"], MAPPER_REGISTRY._obj_map["DoublingMapper"]
    from seg_plugins import tasks

    del tasks._EVALUATORS["darkness"]


def test_a_run_knows_it_everywhere(own, tiny_args):
    args = tiny_args(
        *own, "SOLVER.MAX_ITER", "4", "TEST.EVAL_PERIOD", "1", "INPUT.MOSAIC", "0.5",
        "SOLVER.EARLY_STOPPING.PATIENCE", "1", "SOLVER.EARLY_STOPPING.MIN_GAIN", "100.0",
        "TEST.REPORT", "True", "TEST.REPORT_IMAGES", "1",
    )  # fmt: skip
    cfg = setup(args)
    trainer = Trainer(cfg)
    assert (trainer.best_metric.name, trainer.best_metric.higher_is_better) == (
        "darkness/share", False,
    )  # fmt: skip
    trainer.resume_or_load(resume=False)
    results = trainer.train()
    run = Path(cfg.OUTPUT_DIR)
    assert results["darkness"]["images"] == 4
    log = (run / "log.txt").read_text()
    assert "darkness/share was no better in 1 evaluations: stopping early." in log
    assert (run / "model_best.pth").is_file()
    written = json.loads((run / "inference" / "darkness_results.json").read_text())
    assert written == {"dataset": "own_test", "results": {"darkness": results["darkness"]}}
    assert (run / "inference" / "pictures.png").is_file()
    page = (run / "report.html").read_text()
    for part in ("darkness on own_test", "darkness scores", "share"):
        assert part in page, part
    assert "Not everything could be shown" not in page
    predictor = Predictor.from_config(run / "config.yaml", run / "model_best.pth")
    assert [label.name for label in predictor.labels.stuff] == ["dark", "middle", "bright"]
    assert predictor(DatasetCatalog.get("own_test")[0]["file_name"]).semantic.shape == (40, 48)
    assert not check_dataset("own_test").problems


def test_a_metric_is_checked_before_training(own, tiny_args):
    cfg = setup(tiny_args(*own, "TEST.BEST_METRIC", "sem_seg/mIoU"))
    with pytest.raises(ConfigError, match=r"mIoU is given by no evaluation.*darkness/share"):
        Trainer(cfg)
    cfg.defrost()
    cfg.TEST.BEST_METRIC = "darkness/images"
    assert Trainer.build_best_metric(cfg).higher_is_better
    cfg.DATASETS.TEST, cfg.TEST.BEST_METRIC = ("own_test", "tiny_semantic_test"), "darkness/share"
    with pytest.raises(ConfigError, match=r"own_test/darkness/share.*tiny_semantic_test/sem_seg/m"):
        Trainer.build_best_metric(cfg)


def test_the_task_is_the_one_that_was_declared(own):
    assert task_of_evaluator("darkness").name == "semantic"
    assert Dataset.get("own_test").task.mapper == "SemanticMapper"
    assert "darkness" in known_evaluators()
    EVALUATOR_REGISTRY.register("darkness", Darkness, task="semantic")  # again: nothing changes
    with pytest.raises(ValueError, match=r"'darkness' is registered already, by .*Darkness"):
        EVALUATOR_REGISTRY.register("darkness", print, task="semantic")


def test_a_task_that_is_missing_or_unknown_is_refused():
    with pytest.raises(ValueError, match=r"say which task it measures.*'panoptic' or 'instance'"):
        EVALUATOR_REGISTRY.register("lightness", Darkness)
    with pytest.raises(UnknownTaskError, match=r"'depth' is unknown; known are instance, panoptic"):
        EVALUATOR_REGISTRY.register("lightness", Darkness, task="depth")
    assert "lightness" not in EVALUATOR_REGISTRY


def test_an_unknown_type_is_told_before_training(own, tiny_args):
    vars(MetadataCatalog.get("own_test"))["evaluator_type"] = "darknes"
    cfg = setup(tiny_args(*own))
    (problem,) = check_dataset("own_test").problems
    assert "'darknes' is unknown, so that own_test cannot be a test set" in problem.message
    with pytest.raises(EvaluationError, match=r"'darknes'\. Known: .*darkness"):
        build_evaluator(cfg, "own_test")
    with pytest.raises(EvaluationError, match="'darknes'"):
        Trainer(cfg)


def test_a_mapper_that_is_not_made_for_it_refuses_what_combines_samples(own, tiny_args):
    cfg = setup(tiny_args(*own))
    image = build_mapper(cfg, False)(DatasetCatalog.get("own_test")[0])["image"]
    assert image.dtype == torch.float32
    cfg.defrost()
    cfg.INPUT.COPY_PASTE, cfg.INPUT.MASK_FORMAT = 0.5, "bitmask"
    with pytest.raises(ValueError, match=r"COPY_PASTE needs InstanceMapper.*DoublingMapper has no"):
        build_mapper(cfg, True)
