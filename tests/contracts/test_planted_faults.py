"""Each contract test of seg_plugins.testing fails where its contract is broken, and says how."""

from __future__ import annotations

import random

from seg_plugins import load_config, tasks
from seg_plugins.data import MAPPER_REGISTRY, Dataset, SemanticMapper, generator
from seg_plugins.evaluation import EVALUATOR_REGISTRY
from seg_plugins.modeling import LOSS_REGISTRY, Losses, SemanticLoss, Sum
from seg_plugins.modeling.losses import pixel_cross_entropy
from seg_plugins.testing import (
    check_dataset,
    check_evaluator,
    check_loss,
    check_mapper,
    check_semantic_head,
)

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, SEM_SEG_HEADS_REGISTRY, Backbone
from torch import nn


@pytest.fixture(autouse=True)
def registries(monkeypatch):
    """What a test registers is gone after it."""
    all_of_them = (LOSS_REGISTRY, MAPPER_REGISTRY, SEM_SEG_HEADS_REGISTRY, BACKBONE_REGISTRY)
    for registry in (*all_of_them, EVALUATOR_REGISTRY):
        monkeypatch.setattr(registry, "_obj_map", dict(registry._obj_map))
    monkeypatch.setattr(tasks, "_EVALUATORS", dict(tasks._EVALUATORS))


# ------------------------------------------------------------------------------------------ head


class Stem(Backbone):
    """One convolution of stride 4, so that a head is what takes the time."""

    size_divisibility = 4

    def __init__(self, cfg, input_shape):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 4, stride=4)

    def forward(self, x):
        return {"stem": self.conv(x)}

    def output_shape(self):
        return {"stem": ShapeSpec(channels=8, stride=4)}


class Head(nn.Module):
    """A head that holds the contract; each fault is a class that changes one thing."""

    def __init__(self, cfg, input_shape):
        super().__init__()
        self.classes = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
        self.score = nn.Conv2d(8, self.classes, 1)
        self.other = nn.Conv2d(8, self.classes, 1)
        self.loss = SemanticLoss(num_classes=self.classes)

    def scores(self, x):
        return self.score(x) + self.other(x)

    def upsample(self, x):
        return F.interpolate(x, scale_factor=4, mode="bilinear")

    def losses(self, logits, targets):
        return Losses({"loss_sem_seg": self.loss(logits, targets)})

    def forward(self, features, targets=None):
        logits = self.upsample(self.scores(features["stem"]))
        return (None, self.losses(logits, targets)) if self.training else (logits, {})


class IgnoresTheIgnoreLabel(Head):
    def losses(self, logits, targets):
        return {"loss_sem_seg": F.cross_entropy(logits, targets.clamp(max=self.classes - 1))}


class DividesByNothing(Head):
    def losses(self, logits, targets):
        return {"loss_sem_seg": F.cross_entropy(logits, targets, ignore_index=255)}


class KeepsItsStride(Head):
    def forward(self, features, targets=None):
        logits = self.scores(features["stem"])
        return (
            (None, self.losses(self.upsample(logits), targets)) if self.training else (logits, {})
        )


class GivesOneClassLess(Head):
    def forward(self, features, targets=None):
        found, losses = super().forward(features, targets)
        return (found, losses) if self.training else (found[:, 1:], losses)


class LeavesOneOut(Head):
    def scores(self, x):
        return self.score(x)


class MultipliesByZero(Head):
    def scores(self, x):
        return self.score(x) + 0 * self.other(x)


class GivesALossByPixel(Head):
    def losses(self, logits, targets):
        return {
            "loss_sem_seg": F.cross_entropy(logits, targets, ignore_index=255, reduction="none")
        }


class GivesNoNumber(Head):
    def losses(self, logits, targets):
        return {"loss_sem_seg": self.loss(logits, targets).value * float("nan")}


class JoinsTheImages(Head):
    def scores(self, x):
        x = x if self.training else x - x.mean(dim=(0, 2, 3), keepdim=True)
        return super().scores(x)


class KeepsAnAttribute(Head):
    """Part of its weights is not among its parameters: a checkpoint would lose it."""

    def __init__(self, cfg, input_shape):
        super().__init__(cfg, input_shape)
        self.hidden = torch.randn(self.classes, 1, 1)

    def scores(self, x):
        return super().scores(x) + self.hidden


def check_head(head):
    BACKBONE_REGISTRY._do_register("Stem", Stem)
    SEM_SEG_HEADS_REGISTRY._do_register("Planted", head)
    cfg = load_config("quickstart/deeplabv3plus_r18_shapes.yaml")
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.BACKBONE.NAME = "SemanticSystem", "Stem"
    cfg.MODEL.SEM_SEG_HEAD.NAME = "Planted"
    check_semantic_head(cfg, size=(32, 48))


def test_a_head_that_holds_the_contract_passes():
    check_head(Head)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (IgnoresTheIgnoreLabel, "labels of 255 have no part in it"),
        (DividesByNothing, "nan where all pixels are ignored: divide by the number of valid"),
        (KeepsItsStride, "do not cover the image"),
        (GivesOneClassLess, "logits of shapes"),
        (LeavesOneOut, "no gradient reaches other.weight"),
        (MultipliesByZero, "no gradient reaches other.weight"),
        (GivesALossByPixel, "a loss is a scalar tensor"),
        (GivesNoNumber, "loss_sem_seg is nan"),
        (JoinsTheImages, "in a batch the logits differ"),
        (KeepsAnAttribute, "with loaded weights the logits differ"),
    ],
)
def test_faults_of_heads(head, message):
    with pytest.raises((AssertionError, ValueError), match=message):
        check_head(head)


# ------------------------------------------------------------------------------------------ loss


def nan_of_nothing(logits, targets, valid, weights):
    return pixel_cross_entropy(logits, targets).sum() / valid.sum()


def with_ignored(logits, targets, valid, weights):
    return Sum(pixel_cross_entropy(logits, targets).sum() + logits.square().sum(), valid.sum())


def by_all_pixels_of_nothing(logits, targets, valid, weights):
    return Sum(pixel_cross_entropy(logits, targets).sum() + 1, valid.sum())


def hides_nan(logits, targets, valid, weights):
    return Sum(pixel_cross_entropy(logits, targets).nan_to_num().sum(), valid.sum())


def by_pixel(logits, targets, valid, weights):
    return pixel_cross_entropy(logits, targets)


def in_double(logits, targets, valid, weights):
    return Sum(pixel_cross_entropy(logits, targets).double().sum(), valid.sum())


def without_gradient_of_its_own(logits, targets, valid, weights):
    return Sum((logits - logits).abs().sqrt().sum(), valid.sum())


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (nan_of_nothing, "nan where all pixels are ignored"),
        (with_ignored, "ignored pixels have a gradient"),
        (by_all_pixels_of_nothing, "where all pixels are ignored, not 0"),
        (hides_nan, "NaN in the scores is hidden"),
        (by_pixel, "a loss is a scalar tensor"),
        (in_double, "torch.float64"),
        (without_gradient_of_its_own, "the gradient is not finite"),
    ],
)
def test_faults_of_losses(loss, message):
    LOSS_REGISTRY._do_register("planted", loss)
    with pytest.raises((AssertionError, ValueError), match=message):
        check_loss("planted")


# ---------------------------------------------------------------------------------------- mapper


class Good(SemanticMapper):
    def __call__(self, record, rng=None):
        rng = generator(rng)
        sample = super().__call__(record, rng)
        return self.change(record, sample, rng)

    def change(self, record, sample, rng):
        sample["image"] = sample["image"].float() * float(rng.uniform(0.8, 1.2))
        return sample


class ChangesTheRecord(Good):
    def change(self, record, sample, rng):
        record["flipped"] = True
        return sample


class DrawsFromNumPy(Good):
    """It is called with a generator, so that nobody sets NumPy's global one before."""

    def change(self, record, sample, rng):
        return super().change(record, sample, np.random)


class DrawsFromPython(Good):
    def change(self, record, sample, rng):
        return super().change(record, sample, random)


class CropsTheImageAlone(Good):
    def change(self, record, sample, rng):
        sample["image"] = sample["image"][:, 1:]
        return sample


class GivesNoLabels(Good):
    def change(self, record, sample, rng):
        del sample["sem_seg"]
        return sample


class GivesAnArray(Good):
    def change(self, record, sample, rng):
        sample["image"] = sample["image"].numpy()
        return sample


def check_planted_mapper(mapper):
    MAPPER_REGISTRY._do_register("Planted", mapper)
    cfg = load_config("quickstart/deeplabv3plus_r18_shapes.yaml")
    cfg.INPUT.MAPPER, cfg.DATASETS.TRAIN = "Planted", ("shapes_val",)
    check_mapper(cfg)


def test_a_mapper_that_holds_the_contract_passes():
    check_planted_mapper(Good)


@pytest.mark.parametrize(
    ("mapper", "message"),
    [
        (ChangesTheRecord, "changes the record"),
        (DrawsFromNumPy, "with the same random state another sample"),
        (DrawsFromPython, "with the same random state another sample"),
        (CropsTheImageAlone, r"'sem_seg' .* for an image"),
        (GivesNoLabels, "gives no labels in training"),
        (GivesAnArray, "'image' is no tensor"),
    ],
)
def test_faults_of_mappers(mapper, message):
    with pytest.raises(AssertionError, match=f"{mapper.__name__}.*{message}"):
        check_planted_mapper(mapper)


# --------------------------------------------------------------------------------------- evaluator


class Share(DatasetEvaluator):
    """Percent of the pixels whose class is found."""

    higher = True

    def __init__(self, dataset):
        self.dataset = dataset
        self.reset()

    def metrics(self):
        return {"found/share": self.higher}

    def reset(self):
        self.found = []

    def process(self, inputs, outputs):
        for sample, output in zip(inputs, outputs, strict=True):
            labels = self.dataset.read_label(sample["sem_seg_file_name"])
            right = output["sem_seg"].argmax(0).numpy() == labels
            self.found.append(float(right[labels != self.dataset.ignore_label].mean()))

    def evaluate(self):
        return {"found": {"share": 100 * float(np.mean(self.found))}}


class WrongDirection(Share):
    higher = False


class NotReset(Share):
    def reset(self):
        self.found = getattr(self, "found", [])


class TheLastOne(Share):
    def evaluate(self):
        return {"found": {"share": self.found[-1]}}


class TheFirstOfABatch(Share):
    def process(self, inputs, outputs):
        super().process(inputs[:1], outputs[:1])


class Constant(Share):
    higher = False

    def evaluate(self):
        return {"found": {"share": 1.0}}


class SaysNothing(Share):
    metrics = None


class SaysAnother(Share):
    def metrics(self):
        return {"found/area": True}


class GivesATensor(Share):
    def evaluate(self):
        return {"found": {"share": torch.tensor(super().evaluate()["found"]["share"])}}


def scores(record):
    labels = torch.tensor(Dataset.get("shapes_val").read_label(record["sem_seg_file_name"]))
    return {"sem_seg": F.one_hot(labels.long().clamp(max=7), 8).permute(2, 0, 1)}


def shifted(record):
    return {"sem_seg": scores(record)["sem_seg"].roll(9, 2)}


def check_planted_evaluator(evaluator, folder):
    name = f"planted_{evaluator.__name__}"
    known = MetadataCatalog.get("shapes_val").as_dict()
    known = {key: value for key, value in known.items() if key not in ("name", "evaluator_type")}
    MetadataCatalog.get(name).set(**known, evaluator_type=name)
    DatasetCatalog.register(name, lambda: DatasetCatalog.get("shapes_val")[:5])
    try:
        EVALUATOR_REGISTRY.register(
            name, lambda cfg, dataset, _: evaluator(dataset), task="semantic"
        )
        cfg = load_config("quickstart/deeplabv3plus_r18_shapes.yaml")
        check_evaluator(cfg, name, scores, shifted, folder=folder)
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_an_evaluator_that_holds_the_contract_passes(tmp_path):
    check_planted_evaluator(Share, tmp_path)


@pytest.mark.parametrize(
    ("evaluator", "message"),
    [
        (WrongDirection, "says that lower is better"),
        (NotReset, "in another order after reset"),
        (TheLastOne, "in another order after reset"),
        (TheFirstOfABatch, "one image at a time"),
        (Constant, "for a perfect model and for a poor one"),
        (SaysNothing, r"has no method metrics\(\)"),
        (SaysAnother, r"declares \['found/area'\] and does not give them"),
        (GivesATensor, "no number"),
    ],
)
def test_faults_of_evaluators(evaluator, message, tmp_path):
    with pytest.raises(AssertionError, match=f"{evaluator.__name__}.*{message}"):
        check_planted_evaluator(evaluator, tmp_path)


# ----------------------------------------------------------------------------------------- dataset


def broken(records, fault):
    if fault == "no such file":
        records[0]["sem_seg_file_name"] = "nowhere.png"
    elif fault == "another size":
        records[0]["height"] += 7
    elif fault == "another order":
        random.shuffle(records)
    elif fault == "nothing":
        records.clear()
    return records


@pytest.mark.parametrize("fault", ["no such file", "another size", "another order", "nothing"])
def test_faults_of_datasets(fault):
    known = MetadataCatalog.get("shapes_val").as_dict()
    MetadataCatalog.get("planted").set(**{k: v for k, v in known.items() if k != "name"})
    records = DatasetCatalog.get("shapes_val")[:12]
    DatasetCatalog.register("planted", lambda: broken([dict(r) for r in records], fault))
    try:
        with pytest.raises((AssertionError, ValueError)):
            check_dataset("planted", max_samples=12)
    finally:
        Dataset.forget("planted")
        DatasetCatalog.remove("planted")
        MetadataCatalog.remove("planted")
