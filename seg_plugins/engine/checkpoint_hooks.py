"""When checkpoints are saved: periodically, at the end, on a better result, before a stop."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.utils import comm

from ..io.files import WriteError
from .best_metric import BestMetric
from .checkpoint import Checkpointer

logger = logging.getLogger(__name__)


class PeriodicCheckpoint(HookBase):
    """Saves ``model_0000999.pth`` every ``period`` iterations and ``model_final.pth`` at the end.

    It belongs into every process: the checkpoint holds the random state of each. A periodic save
    that fails (a full disk) is logged, and training goes on; at the end and before a stop it is
    an error.
    """

    def __init__(self, checkpointer: Checkpointer, period: int) -> None:
        self.checkpointer, self.period = checkpointer, period

    def after_step(self) -> None:
        """Save when it is due, or when the training is about to stop."""
        iteration = self.trainer.iter
        if iteration >= self.trainer.max_iter - 1:
            self._save("model_final", required=True)
        elif self.trainer.stopping:
            self._save(f"model_{iteration:07d}", required=True)
        elif self.period > 0 and (iteration + 1) % self.period == 0:
            self._save(f"model_{iteration:07d}", required=False)

    def _save(self, name: str, *, required: bool) -> None:
        self.trainer.gather_random_states()
        try:
            self.checkpointer.save(name, iteration=self.trainer.iter, in_background=not required)
        except WriteError as error:
            if required:
                raise
            logger.error("%s Training goes on; the next save is tried in %d iterations.",
                         error, self.period)  # fmt: skip

    def after_train(self) -> None:
        """Wait for a save in the background."""
        self.checkpointer.wait()


class BestCheckpoint(HookBase):
    """Saves ``model_best.pth`` after an evaluation with a better figure.

    ``last_checkpoint`` is not touched: ``--resume`` continues from the last checkpoint, not from
    the best.

    Args:
        checkpointer: saves.
        cfg: says when to stop early.
        metric: the figure that decides.
    """

    def __init__(self, checkpointer: Checkpointer, cfg: CfgNode, metric: BestMetric) -> None:
        self.checkpointer = checkpointer
        self.metric = metric
        self.patience = cfg.SOLVER.EARLY_STOPPING.PATIENCE
        self.min_gain = cfg.SOLVER.EARLY_STOPPING.MIN_GAIN
        self.best = -math.inf  # the metric, or its negative where lower is better
        self.without_gain = 0
        self._seen = -1

    def after_step(self) -> None:
        """Look for a new result of the metric in the event storage."""
        latest: Mapping[str, tuple[float, int]] = self.trainer.storage.latest()
        names = (self.metric.name, *self.metric.others)
        name = next((name for name in names if name in latest), None)
        if name is None:
            return
        value, iteration = latest[name]
        if iteration == self._seen or iteration != self.trainer.iter:
            return
        self._seen = iteration
        score = value if self.metric.higher_is_better else -value
        self.without_gain = 0 if score > self.best + self.min_gain else self.without_gain + 1
        if score > self.best:
            self.best = score
            logger.info("Best %s so far: %.4g", name, value)
            self._save(iteration)
        if self.patience and self.without_gain >= self.patience:
            logger.info("%s was no better in %d evaluations: stopping early.",
                        name, self.without_gain)  # fmt: skip
            self.trainer.want_stop(finish=True)

    def _save(self, iteration: int) -> None:
        try:
            self.checkpointer.save("model_best", tag_last=False, iteration=iteration)
        except WriteError as error:
            logger.error("%s Training goes on.", error)

    def after_train(self) -> None:
        """Look at the last evaluation, which runs after the last step."""
        self.after_step()
        if self._seen < 0 and self.best == -math.inf and self.trainer.complete:
            logger.warning("%s was never measured: there is no model_best.pth.", self.metric.name)

    def state_dict(self) -> dict[str, Any]:
        """The best value, its age and its metric, so that a resumed run does not forget them."""
        return {"best": self.best, "without_gain": self.without_gain, "metric": self.metric.name}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`state_dict`'s content, unless it tells of another metric."""
        former = state.get("metric", self.metric.name)
        if former != self.metric.name:
            logger.warning(
                "TEST.BEST_METRIC is %s, which was %s: the best value is looked for anew",
                self.metric.name, former,
            )  # fmt: skip
            return
        self.best = state["best"]
        self.without_gain = int(state.get("without_gain", 0))


def on_main_process(hooks: list[HookBase]) -> list[HookBase]:
    """The hooks in the main process, none in others."""
    return hooks if comm.is_main_process() else []
