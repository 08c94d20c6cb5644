"""The one trainer: a bill of materials over Detectron2's DefaultTrainer."""

from __future__ import annotations

import contextlib
import logging
import signal
import weakref
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, create_ddp_model, hooks
from detectron2.modeling import build_model
from detectron2.utils import comm
from torch import nn

from ..data import build_mapper
from . import random_state
from .best_metric import BestMetric, find_best_metric
from .checkpoint import AVERAGE, Checkpointer
from .checkpoint_hooks import BestCheckpoint, PeriodicCheckpoint, on_main_process
from .evaluating import Evaluates
from .failures import explained
from .hooks import Pictures
from .model_options import apply_model_options, unused_features
from .report_hook import Report
from .run_record import RunRecord
from .solver import build_clip, build_optimizer, build_schedule
from .step_options import StepOptions, accumulation, amp_dtype
from .stopping import EvaluationStopped, interruptible
from .train_loader import TrainLoader, build_train_loader
from .train_step import TrainStep
from .validation_loss import validation_loss
from .weight_average import AverageWeights, WeightAverage
from .worker_signals import handled
from .writers import BoundedStorage, build_writers

logger = logging.getLogger(__name__)


class Trainer(Evaluates, DefaultTrainer):
    """Trains what the configuration names. Every part is a ``build_*`` method to override.

    Args:
        cfg: as :func:`seg_plugins.engine.setup` returns it.
    """

    def __init__(self, cfg: CfgNode) -> None:
        super(DefaultTrainer, self).__init__()  # the parts below replace DefaultTrainer's
        cfg = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())
        self.cfg = cfg
        self.best_metric = self.build_best_metric(cfg)
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        self.train_loader = self.build_train_loader(cfg)
        self._trainer = TrainStep(
            model=self.distribute(cfg, model),
            loader=self.train_loader,
            optimizer=optimizer,
            device=cfg.MODEL.DEVICE,
            output_dir=cfg.OUTPUT_DIR,
            options=self.build_step_options(cfg),
        )
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.average = WeightAverage(model, cfg.MODEL_EMA.DECAY) if cfg.MODEL_EMA.ENABLED else None
        states: dict[str, Any] = {"trainer": weakref.proxy(self)}
        if self.average is not None:
            states[AVERAGE] = self.average
        self.checkpointer = self.build_checkpointer(cfg, model, **states)
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.stopping = False
        self._drawn_before = 0
        self._random_states: list[dict[str, Any]] = []
        self._last_eval_results: dict[str, Any] | None = None
        self.register_hooks(self.build_hooks())

    # ------------------------------------------------------------------------------- builders

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """The meta-architecture, run as :mod:`~seg_plugins.engine.model_options` says."""
        model = build_model(cfg)
        count = sum(p.numel() for p in model.parameters()) / 1e6
        logger.info(
            "%s with %s: %.2f M parameters on %s",
            cfg.MODEL.META_ARCHITECTURE,
            cfg.MODEL.BACKBONE.NAME,
            count,
            cfg.MODEL.DEVICE,
        )
        return apply_model_options(cfg, model)

    @classmethod
    def distribute(cls, cfg: CfgNode, model: nn.Module) -> nn.Module:
        """The model wrapped for several processes, or itself."""
        devices = [comm.get_local_rank()] if cfg.MODEL.DEVICE.startswith("cuda") else None
        unused = unused_features(model)
        if unused and comm.get_world_size() > 1:
            logger.warning(
                "No head uses %s of the backbone: the search for what has no gradient costs time "
                "in every iteration. Leave them out of the backbone's OUT_FEATURES",
                ", ".join(unused),
            )
        return create_ddp_model(
            model, broadcast_buffers=False, device_ids=devices, find_unused_parameters=bool(unused)
        )

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        """See :mod:`seg_plugins.engine.solver`."""
        return build_optimizer(cfg, model)

    @classmethod
    def build_step_options(cls, cfg: CfgNode) -> StepOptions:
        """Precision, gradient accumulation, clipping and what to do about NaN."""
        return StepOptions(
            dtype=amp_dtype(cfg),
            accumulate=accumulation(cfg),
            clip=build_clip(cfg),
            max_skips=cfg.SOLVER.MAX_SKIPPED_BATCHES,
            read_period=cfg.LOG_PERIOD,
        )

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer) -> Any:
        """See :mod:`seg_plugins.engine.solver`."""
        return build_schedule(cfg, optimizer)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> TrainLoader:
        """The sample stream, through the mapper ``INPUT.MAPPER``."""
        return build_train_loader(cfg, build_mapper(cfg, True))

    @classmethod
    def build_checkpointer(cls, cfg: CfgNode, model: nn.Module, **states: Any) -> Checkpointer:
        """Reads ``MODEL.WEIGHTS``, writes to ``OUTPUT_DIR``."""
        return Checkpointer(
            model,
            cfg.OUTPUT_DIR,
            keep=cfg.SOLVER.KEEP_CHECKPOINTS,
            background=cfg.SOLVER.BACKGROUND_CHECKPOINTS,
            **states,
        )

    @classmethod
    def build_best_metric(cls, cfg: CfgNode) -> BestMetric | None:
        """The figure that ``TEST.BEST_METRIC`` names; an unknown one is an error before training.

        Building the evaluators shows, too, what is wrong with the truth.
        """
        evaluators = {name: cls.build_evaluator(cfg, name) for name in cfg.DATASETS.TEST}
        return find_best_metric(cfg, evaluators)

    def build_writers(self) -> list[Any]:
        """Log, ``metrics.json``, TensorBoard, W&B."""
        return build_writers(self.cfg, self.start_iter, self.max_iter)

    def build_hooks(self) -> list[Any]:
        """In order of their work after a step; writers last, so that they see everything."""
        cfg, model = self.cfg, self.checkpointer.model
        items: list[Any] = [hooks.IterationTimer(), hooks.LRScheduler()]
        if self.average is not None:
            items.append(AverageWeights(self.average, model))
        items.append(PeriodicCheckpoint(self.checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD))
        items.append(hooks.EvalHook(cfg.TEST.EVAL_PERIOD, self.evaluate))
        if comm.is_main_process():
            if self.best_metric is not None:
                items.append(BestCheckpoint(self.checkpointer, cfg, self.best_metric))
            items.append(Pictures(cfg))
            items.append(RunRecord(cfg))
        return items

    # --------------------------------------------------------------------------------- stopping

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

    def after_step(self) -> None:
        """Agree on a stop, then let hooks work: one of them saves the checkpoint."""
        self._agree_to_stop()
        super().after_step()

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

    # ----------------------------------------------------------------------------------- runs

    def gather_random_states(self) -> None:
        """Collect the random state of every process for a checkpoint; call it in all of them."""
        self._random_states = comm.gather(random_state.capture())

    def state_dict(self) -> dict[str, Any]:
        """Iteration, hooks, optimizer, loss scale, place in the data, random states."""
        states, self._random_states = self._random_states, []
        return {
            **super(DefaultTrainer, self).state_dict(),
            "_trainer": self._trainer.state_dict(),
            "samples_drawn": self._samples_drawn(self.iter + 1),
            "random_states": states,
        }

    def _samples_drawn(self, iteration: int) -> int:
        """The place in the sample stream when an iteration begins."""
        return self._drawn_before + (iteration - self.start_iter) * self.cfg.SOLVER.IMS_PER_BATCH

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`'s content."""
        super(DefaultTrainer, self).load_state_dict(state_dict)
        if "_trainer" in state_dict:
            self._trainer.load_state_dict(state_dict["_trainer"])
        self.start_iter = self.iter + 1
        drawn = self.start_iter * self.cfg.SOLVER.IMS_PER_BATCH
        self._drawn_before = state_dict.get("samples_drawn", drawn)
        self._random_states = state_dict.get("random_states", [])
        # Rates are the configuration's, at the checkpoint's place in the schedule.
        groups = self._trainer.optimizer.param_groups
        self.scheduler.base_lrs = [group["initial_lr"] for group in groups]
        self.scheduler.last_epoch = self.start_iter
        for group, rate in zip(groups, self.scheduler.get_lr(), strict=True):
            group["lr"] = rate

    def resume_or_load(self, resume: bool = True) -> None:
        """Continue from the newest intact checkpoint of ``OUTPUT_DIR``, or load ``MODEL.WEIGHTS``.

        Raises:
            WeightsError: no file, or none that is intact.
        """
        self.checkpointer.resume_or_load(self.cfg.MODEL.WEIGHTS, resume=resume)
        if self.average is not None and not self.average.updates:
            self.average.reset(self.checkpointer.model)
        if self.start_iter:
            logger.info("Resuming at iteration %d of %d.", self.start_iter, self.max_iter)

    def _restore_random_states(self) -> None:
        states, self._random_states = self._random_states, []
        if len(states) == comm.get_world_size():
            random_state.restore(states[comm.get_rank()])
        elif self.start_iter:
            random_state.seed_from(self.cfg.SEED, self.start_iter, comm.get_rank())
            logger.warning(
                "The checkpoint has the random states of %d processes, and there are %d: dropout "
                "and the like start from new ones.", len(states), comm.get_world_size(),
            )  # fmt: skip

    def train(self) -> dict[str, Any] | None:
        """Train to ``SOLVER.MAX_ITER``; the results of the last evaluation, None after a stop."""
        if self.start_iter >= self.max_iter:
            logger.warning(
                "Nothing to train: iteration %d of SOLVER.MAX_ITER %d is reached; raise it. "
                "--eval-only --resume makes up for an evaluation that was interrupted.",
                self.start_iter,
                self.max_iter,
            )
            return None
        writers = hooks.PeriodicWriter(self.build_writers(), self.cfg.LOG_PERIOD)
        self.register_hooks(on_main_process([writers, Report(self.cfg)]))
        self._trainer.start(self.start_iter, self._drawn_before)
        self._restore_random_states()
        self.iter = self.start_iter
        try:
            self._loop()
        except RuntimeError as error:
            # PyTorch tells of a dead data worker wherever the main process happens to be.
            clear = explained(error, self.train_loader, ())
            if clear is None:
                raise
            raise clear from error
        return None if self.stopping else self._last_eval_results

    def _loop(self) -> None:
        with BoundedStorage(self.start_iter) as self.storage, handled(self._note_signal):
            try:
                self.before_train()
                while self.iter < self.max_iter and not self.stopping:
                    self.before_step()
                    self.run_step()
                    self.after_step()
                    self.iter += 1
            finally:
                self.after_train()

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

    def evaluate(self) -> dict[str, Any]:
        """Evaluate on ``DATASETS.TEST``, by the averaged weights if there are any.

        The training goes on as if there had been no evaluation: random states are put back. A
        single process that is to stop breaks it off and gives no results; several could not agree
        on that before it ends.
        """
        if self.stopping:
            return {}
        model = self._trainer.model
        averaged: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        if self.average is not None:
            averaged = self.average.applied(self.checkpointer.model)
        try:
            with averaged, random_state.untouched_random_state(), interruptible(self._check_stop):
                if self.cfg.TEST.LOSS:
                    losses = validation_loss(self.cfg, model)
                    self.storage.put_scalars(**losses, smoothing_hint=False)
                self._last_eval_results = self.test(self.cfg, model)
        except EvaluationStopped:
            logger.info("The evaluation is broken off")
            model.train()  # Detectron2 leaves it in inference mode after an error
            if self.complete:  # else they agree on it in the next iteration, and save it
                self.stopping = True
            return {}
        return self._last_eval_results

    def _check_stop(self) -> None:
        if self._trainer.stop_wanted and comm.get_world_size() == 1:
            raise EvaluationStopped
