"""The one trainer: a bill of materials over Detectron2's loop and hooks."""

from __future__ import annotations

import contextlib
import logging
import signal
import weakref
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, TrainerBase, hooks
from detectron2.utils import comm
from torch import nn

from ..io.weights.layout import EMA_KEY
from .builders import Builders
from .console import ProgressBar
from .evaluating import EvaluationStopped, interruptible, validation_loss
from .failures import INTERRUPTED, explained, logged_without_traceback
from .hooks import BestCheckpoint, EMAHook, PeriodicCheckpoint, PicturesHook, ReportHook, RunRecord
from .process import handled
from .solver import set_iteration
from .train_loader import as_batch_loader
from .train_step import TrainStep
from .training_state import (
    ModelEMA,
    capture_random_state,
    resume_random_states,
    untouched_random_state,
)
from .writers import bound_history, build_writers

logger = logging.getLogger(__name__)


class _LoopLeft(BaseException):
    """Ends Detectron2's loop early; it would log an Exception as a failure."""


class Trainer(Builders, TrainerBase):
    """Trains what the configuration names. Every part is a ``build_*`` method to override.

    They have the names of Detectron2's DefaultTrainer, whose constructor is not used: it starts
    the data loader before it is known where to resume.

    Args:
        cfg: as :func:`seg_plugins.engine.setup` returns it.
    """

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__()
        cfg = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())
        self.cfg = cfg
        self.best_metric = self.build_best_metric(cfg)
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        self.train_loader = as_batch_loader(self.build_train_loader(cfg))
        self._trainer = TrainStep(
            model=self.distribute(cfg, model),
            loader=self.train_loader,
            optimizer=optimizer,
            device=cfg.MODEL.DEVICE,
            output_dir=cfg.OUTPUT_DIR,
            options=self.build_step_options(cfg),
        )
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.ema = ModelEMA(model, cfg.MODEL_EMA.DECAY) if cfg.MODEL_EMA.ENABLED else None
        states: dict[str, Any] = {"trainer": weakref.proxy(self)}
        if self.ema is not None:
            states[EMA_KEY] = self.ema
        self.checkpointer = self.build_checkpointer(cfg, model, **states)
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.stopping = False
        self._drawn_before = 0
        self._random_states: list[dict[str, Any]] = []
        self._last_eval_results: dict[str, Any] | None = None
        self.register_hooks(self.build_hooks())

    @property
    def model(self) -> nn.Module:
        """As it trains: with several processes, wrapped by :meth:`distribute`."""
        return self._trainer.model

    @property
    def data_loader(self) -> Any:
        """What gives the batches."""
        return self._trainer.data_loader

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """As :meth:`build_optimizer` made it."""
        return self._trainer.optimizer

    # --------------------------------------------------------------------------- more builders

    def build_writers(self) -> list[Any]:
        """Log, ``metrics.json``, TensorBoard, W&B."""
        return build_writers(self.cfg, self.start_iter, self.max_iter)

    def build_hooks(self) -> list[Any]:
        """In order of their work after a step; writers last, so that they see everything."""
        cfg, model = self.cfg, self.checkpointer.model
        items: list[Any] = [hooks.IterationTimer(), hooks.LRScheduler()]
        if self.ema is not None:
            items.append(EMAHook(self.ema, model))
        items.append(PeriodicCheckpoint(self.checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD))
        items.append(hooks.EvalHook(cfg.TEST.EVAL_PERIOD, self.evaluate))
        if comm.is_main_process():
            if self.best_metric is not None:
                items.append(BestCheckpoint(self.checkpointer, cfg, self.best_metric))
            items.append(PicturesHook(cfg))
            items.append(RunRecord(cfg))
        return items

    # ------------------------------------------------------------------------- loop and stopping

    def train(self) -> dict[str, Any] | None:
        """Train to ``SOLVER.MAX_ITER``; the results of the last evaluation, None after a stop."""
        if self.start_iter >= self.max_iter:
            logger.warning(
                "Nothing to train: iteration %d of SOLVER.MAX_ITER %d is reached; raise it. "
                "--eval-only --resume makes up for an evaluation that was interrupted.",
                self.start_iter, self.max_iter,
            )  # fmt: skip
            return None
        if comm.is_main_process():
            writers = hooks.PeriodicWriter(self.build_writers(), self.cfg.LOG_PERIOD)
            self.register_hooks([writers, ProgressBar(), ReportHook(self.cfg)])
        self._trainer.start(self.start_iter, self._drawn_before)
        states, self._random_states = self._random_states, []
        resume_random_states(states, self.cfg.SEED, self.start_iter)
        try:
            with handled(self._note_signal), logged_without_traceback(self.train_loader):
                super().train(self.start_iter, self.max_iter)
        except _LoopLeft:
            pass
        except INTERRUPTED as error:
            clear = explained(error, self.train_loader, ())
            if clear is None:
                raise
            raise clear from error
        return None if self.stopping else self._last_eval_results

    def before_train(self) -> None:
        """Let hooks prepare."""
        bound_history(self.storage)
        super().before_train()

    def before_step(self) -> None:
        """Let hooks begin, unless the training is to end here."""
        if self.stopping or self.iter >= self.max_iter:
            raise _LoopLeft
        super().before_step()

    def run_step(self) -> None:
        """One iteration."""
        self._trainer.iter = self.iter
        self._trainer.run_step()

    def after_step(self) -> None:
        """Agree on a stop, then let hooks work: one of them saves the checkpoint."""
        self._agree_to_stop()
        super().after_step()

    def after_train(self) -> None:
        """Let hooks finish: evaluation, pictures and report, unless training is to stop."""
        if self.complete:  # a signal may have come after the last iteration, and to one process
            self.stopping = any(comm.all_gather(self._trainer.stop_wanted))
        super().after_train()
        if self.stopping and self.iter >= self.max_iter:
            logger.warning(
                "The training is complete, but its last evaluation, pictures and report are left "
                "out: --eval-only --resume makes them."
            )

    def want_stop(self, *, finish: bool = False) -> None:
        """Ask all processes to end the training; any of them may, at any time.

        Args:
            finish: end as if ``MAX_ITER`` were reached, with ``model_final`` and the last
                evaluation; else only with a checkpoint to resume from.
        """
        if finish:
            self._trainer.finish_wanted = True
        else:
            self._trainer.stop_wanted = True

    @property
    def complete(self) -> bool:
        """Whether all iterations are made and no stop stands against evaluation and report."""
        return self.iter >= self.max_iter and not self.stopping

    def _note_signal(self, number: int) -> None:
        logger.warning("%s was received", signal.Signals(number).name)
        self.want_stop()

    def _agree_to_stop(self) -> None:
        """Take note of what all processes know by now; they do so in the same iteration."""
        step = self._trainer
        alone = comm.get_world_size() == 1
        if step.verdicts.finish or (alone and step.finish_wanted):
            self.max_iter = min(self.max_iter, self.iter + 1)
        if step.verdicts.stop or (alone and step.stop_wanted):
            if not self.stopping and self.iter + 1 < self.max_iter:
                logger.info("Stopping after iteration %d; --resume continues.", self.iter)
            self.stopping = True

    # ---------------------------------------------------------------------------------- state

    def gather_random_states(self) -> None:
        """Collect the random state of every process for a checkpoint; call it in all of them."""
        self._random_states = comm.gather(capture_random_state())

    def state_dict(self) -> dict[str, Any]:
        """Iteration, hooks, optimizer, loss scale, place in the data, random states."""
        states, self._random_states = self._random_states, []
        return {
            **super().state_dict(),
            "_trainer": self._trainer.state_dict(),
            "samples_drawn": self._samples_drawn(self.iter + 1),
            "random_states": states,
        }

    def _samples_drawn(self, iteration: int) -> int:
        """The place in the sample stream when an iteration begins."""
        return self._drawn_before + (iteration - self.start_iter) * self.cfg.SOLVER.IMS_PER_BATCH

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`'s content."""
        super().load_state_dict(state_dict)
        if "_trainer" in state_dict:
            self._trainer.load_state_dict(state_dict["_trainer"])
        self.start_iter = self.iter + 1
        drawn = self.start_iter * self.cfg.SOLVER.IMS_PER_BATCH
        self._drawn_before = state_dict.get("samples_drawn", drawn)
        self._random_states = state_dict.get("random_states", [])
        set_iteration(self.scheduler, self.optimizer, self.start_iter)

    def resume_or_load(self, resume: bool = True) -> None:
        """Continue from the newest intact checkpoint of ``OUTPUT_DIR``, or load ``MODEL.WEIGHTS``.

        Raises:
            WeightsError: no file, or none that is intact.
        """
        self.checkpointer.resume_or_load(self.cfg.MODEL.WEIGHTS, resume=resume)
        if self.ema is not None and not self.ema.updates:
            self.ema.reset(self.checkpointer.model)
        if self.start_iter:
            logger.info("Resuming at iteration %d of %d.", self.start_iter, self.max_iter)

    # ------------------------------------------------------------------------------- evaluation

    def ema_applied(self) -> contextlib.AbstractContextManager[None]:
        """The model has the EMA of its weights, where there is one, within a block."""
        if self.ema is None:
            return contextlib.nullcontext()
        return self.ema.applied(self.checkpointer.model)

    def evaluate(self) -> dict[str, Any]:
        """Evaluate on ``DATASETS.TEST``, by the EMA of the weights if there is one.

        The training goes on as if there had been no evaluation: random states are put back. A
        single process that is to stop breaks it off and gives no results; several could not agree
        on that before it ends.
        """
        if self.stopping:
            return {}
        try:
            with self.ema_applied(), untouched_random_state(), interruptible(self._check_stop):
                if self.cfg.TEST.LOSS:
                    losses = validation_loss(self.cfg, self.model)
                    self.storage.put_scalars(**losses, smoothing_hint=False)
                self._last_eval_results = self.test(self.cfg, self.model)
        except EvaluationStopped:
            logger.info("The evaluation is broken off")
            self.model.train()  # Detectron2 leaves it in inference mode after an error
            if self.complete:  # else they agree on it in the next iteration, and save it
                self.stopping = True
            return {}
        return self._last_eval_results

    def _check_stop(self) -> None:
        if self._trainer.stop_wanted and comm.get_world_size() == 1:
            raise EvaluationStopped
