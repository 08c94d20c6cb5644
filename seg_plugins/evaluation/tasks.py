"""Several tasks of one dataset, scored as far as the model predicts them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from .errors import EvaluationError

logger = logging.getLogger(__name__)


class TaskEvaluators(DatasetEvaluator):
    """Runs the evaluators whose task the model predicts; the first output decides.

    A dataset may hold the truth of more tasks than a model solves: Mask R-CNN on a panoptic
    dataset is scored on its instances. An output that lacks what the first one had is an error.

    Args:
        evaluators: one per task; those with an ``output_key`` run only where outputs have it.
    """

    def __init__(self, evaluators: Sequence[DatasetEvaluator]) -> None:
        self.evaluators = list(evaluators)
        self._chosen: tuple[bool, ...] | None = None

    def metrics(self) -> dict[str, bool]:
        """Figures of all tasks, ``group/name``: whether higher is better."""
        return {k: v for e in self.evaluators for k, v in declared_metrics(e).items()}

    def reset(self) -> None:
        """Forget everything seen; called before each round of evaluation."""
        self._chosen = None
        for evaluator in self.evaluators:
            evaluator.reset()

    def process(self, inputs: Sequence[Mapping], outputs: Sequence[Mapping]) -> None:
        """Hand a batch to every evaluator whose task is predicted."""
        if self._chosen is None and outputs:
            self._chosen = tuple(_wants(evaluator, outputs[0]) for evaluator in self.evaluators)
            if not any(self._chosen):
                keys = ", ".join(getattr(e, "output_key", "?") for e in self.evaluators)
                raise EvaluationError(
                    f"the model's output has the keys {sorted(outputs[0])}; none of {keys} can "
                    f"be scored."
                )
        for evaluator, chosen in zip(self.evaluators, self._chosen or (), strict=True):
            if chosen:
                evaluator.process(inputs, outputs)

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """The results of all tasks; None on every process but the first."""
        decisions = {chosen for chosen in comm.all_gather(self._chosen) if chosen is not None}
        if len(decisions) > 1:
            raise EvaluationError("processes disagree about the tasks that the model predicts.")
        # A process without images follows the others.
        chosen = decisions.pop() if decisions else (True,) * len(self.evaluators)
        results: dict[str, dict[str, float]] = {}
        for evaluator, runs in zip(self.evaluators, chosen, strict=True):
            if not runs:
                logger.info(
                    "The model predicts no '%s': not scored.", getattr(evaluator, "output_key", "")
                )
                continue
            results |= evaluator.evaluate() or {}
        return results if comm.is_main_process() else None


def declared_metrics(evaluator: DatasetEvaluator) -> dict[str, bool]:
    """What an evaluator says of its figures; Detectron2's own evaluators say nothing."""
    metrics = getattr(evaluator, "metrics", None)
    return metrics() if callable(metrics) else {}


def _wants(evaluator: DatasetEvaluator, output: Mapping) -> bool:
    key = getattr(evaluator, "output_key", "")
    return not key or key in output
