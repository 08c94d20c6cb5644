"""``TEST.AUG`` in evaluations, alone and within a training."""

from __future__ import annotations

from seg_plugins.config import ConfigError
from seg_plugins.data import Dataset
from seg_plugins.engine import Trainer, setup

import pytest
import torch
from detectron2.evaluation import DatasetEvaluator

AUGMENTED = ("TEST.AUG.ENABLED", "True", "TEST.AUG.MIN_SIZES", "(0,)")


class Recorder(DatasetEvaluator):
    """Keeps what the model gave."""

    def __init__(self) -> None:
        self.pairs: list[tuple[dict, torch.Tensor]] = []

    def process(self, inputs, outputs) -> None:
        self.pairs += [(s, o["sem_seg"]) for s, o in zip(inputs, outputs, strict=True)]

    def evaluate(self) -> dict:
        return {}


@pytest.mark.parametrize("training", [True, False])
def test_evaluations_see_the_mean_of_the_views(tiny_args, training):
    cfg = setup(tiny_args(*AUGMENTED, eval_only=True))
    model = Trainer.build_model(cfg).train(training)
    recorder = Recorder()
    Trainer.test(cfg, model, [recorder])
    assert model.training == training
    sample, found = recorder.pairs[0]
    mirrored = {**sample, "image": sample["image"].flip(-1)}
    with torch.no_grad():
        plain, other = (result["sem_seg"] for result in model.eval()([sample, mirrored]))
    mean = (plain.softmax(dim=0) + other.softmax(dim=0).flip(-1)) / 2
    torch.testing.assert_close(found.exp(), mean)


def test_a_training_evaluates_by_its_views(tiny_args, caplog):
    trainer = Trainer(setup(tiny_args(*AUGMENTED, "TEST.PICTURES", "2")))
    sizes: list[int] = []

    def note(_, inputs, __) -> None:
        if not trainer.model.training:
            sizes.append(len(inputs[0]))

    trainer.checkpointer.model.register_forward_hook(note)
    trainer.resume_or_load(resume=False)
    assert trainer.train()["sem_seg"]["mIoU"] >= 0
    assert "TEST.AUG: 2 views of each image" in caplog.text
    assert trainer.model.training
    # Two views of each image that is evaluated, and of each that is drawn.
    images = len(Dataset.get("tiny_semantic_test").records)
    assert sizes == [1] * 2 * (images + 2)


def test_a_system_without_a_rule_is_refused_before_anything_is_built(tiny_args):
    opts = (*AUGMENTED, "MODEL.META_ARCHITECTURE", "PanopticFPN")
    with pytest.raises(ConfigError, match=r"PanopticFPN together\. Set TEST\.AUG\.ENABLED False"):
        setup(tiny_args(*opts))
