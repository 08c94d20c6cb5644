"""Several tasks on one dataset."""

from __future__ import annotations

from seg_plugins.evaluation import EvaluationError
from seg_plugins.evaluation.tasks import TaskEvaluators

import pytest


class Counting:
    def __init__(self, key):
        self.output_key, self.seen = key, 0

    def reset(self):
        self.seen = 0

    def process(self, inputs, outputs):
        self.seen += len(inputs)

    def evaluate(self):
        return {self.output_key: {"seen": self.seen}}


def test_only_predicted_tasks_are_scored():
    evaluator = TaskEvaluators([Counting("sem_seg"), Counting("instances")])
    evaluator.reset()
    evaluator.process([{}, {}], [{"instances": 1}, {"instances": 2}])
    assert evaluator.evaluate() == {"instances": {"seen": 2}}
    evaluator.reset()
    evaluator.process([{}], [{"instances": 1, "sem_seg": 1}])
    assert evaluator.evaluate() == {"sem_seg": {"seen": 1}, "instances": {"seen": 1}}


def test_a_model_that_predicts_nothing_known_is_told_so():
    evaluator = TaskEvaluators([Counting("sem_seg"), Counting("instances")])
    evaluator.reset()
    with pytest.raises(EvaluationError, match=r"\['depth'\]; none of sem_seg, instances"):
        evaluator.process([{}], [{"depth": 1}])
