"""What happens beside the steps: checkpoints, the EMA of the weights, pictures, record, report."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import HookBase
from torch import nn

from ..io.files import WriteError
from .checkpoint import Checkpointer
from .checks.best_metric import BestMetric
from .run_report import tell_end, write_pictures, write_record, write_report
from .training_state import ModelEMA

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


class EMAHook(HookBase):
    """Updates a :class:`ModelEMA` after each step."""

    def __init__(self, ema: ModelEMA, model: nn.Module) -> None:
        self.ema, self.model = ema, model

    def after_step(self) -> None:
        """Take in the new weights."""
        self.ema.update(self.model)


class PicturesHook(HookBase):
    """Draws ``inference/pictures.png`` when training ends."""

    def __init__(self, cfg: CfgNode) -> None:
        self.cfg = cfg

    def after_train(self) -> None:
        """Draw once, unless training was interrupted."""
        if self.trainer.complete:
            model = self.trainer.model
            with self.trainer.ema_applied():  # by the weights that are evaluated
                write_pictures(self.cfg, getattr(model, "module", model))


class RunRecord(HookBase):
    """Writes ``OUTPUT_DIR/run.json`` when training ends; training time adds up over resumes."""

    def __init__(self, cfg: CfgNode) -> None:
        self.cfg = cfg
        self.seconds = 0.0
        self._begin = 0.0

    def before_train(self) -> None:
        """Start the clock."""
        self._begin = time.perf_counter()

    def after_train(self) -> None:
        """Write the file."""
        done = {"iterations": self.trainer.iter, "seconds": round(self._elapsed(), 1)}
        write_record(self.cfg, self.trainer.model, **done)

    def _elapsed(self) -> float:
        return self.seconds + time.perf_counter() - self._begin

    def state_dict(self) -> dict[str, float]:
        """Seconds of training so far."""
        return {"seconds": self._elapsed()}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Restore :meth:`state_dict`'s content."""
        self.seconds = state["seconds"]


class ReportHook(HookBase):
    """Writes the report when training ends; it stands after all hooks that write files."""

    def __init__(self, cfg: CfgNode) -> None:
        self.cfg = cfg

    def after_train(self) -> None:
        """Write it once, unless training was interrupted."""
        if self.trainer.complete:
            with self.trainer.ema_applied():
                write_report(self.cfg, self.trainer.checkpointer.model)
            best = self.trainer.best_metric
            names = (best.name, *best.others) if best else ()
            tell_end(self.cfg, self.trainer.storage.latest(), names)
