"""The one trainer: a bill of materials over Detectron2's DefaultTrainer."""

from __future__ import annotations

import logging
import os
import weakref
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.engine import DefaultTrainer, create_ddp_model, hooks
from detectron2.evaluation import DatasetEvaluator, inference_on_dataset
from detectron2.modeling import build_model
from detectron2.utils import comm
from torch import nn

from ..data import build_mapper
from ..evaluation import build_evaluator, format_results
from .checkpoint import Checkpointer
from .data_stream import TrainLoader, build_train_loader
from .hooks import BestCheckpoint, Pictures
from .run_record import RunRecord
from .solver import build_optimizer, build_schedule
from .train_step import TrainStep, amp_dtype

logger = logging.getLogger(__name__)


class Trainer(DefaultTrainer):
    """Trains what the configuration names. Every part is a ``build_*`` method to override.

    Args:
        cfg: as :func:`seg_plugins.engine.setup` returns it.
    """

    def __init__(self, cfg: CfgNode) -> None:
        super(DefaultTrainer, self).__init__()  # the parts below replace DefaultTrainer's
        cfg = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())
        self.cfg = cfg
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        self._trainer = TrainStep(
            model=self.distribute(cfg, model),
            loader=self.build_train_loader(cfg),
            optimizer=optimizer,
            device=cfg.MODEL.DEVICE,
            dtype=amp_dtype(cfg),
        )
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = self.build_checkpointer(cfg, model, trainer=weakref.proxy(self))
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.register_hooks(self.build_hooks())

    # ------------------------------------------------------------------------------- builders

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """The meta-architecture, in channels-last memory where ``MODEL.CHANNELS_LAST`` says so."""
        model = build_model(cfg)
        count = sum(p.numel() for p in model.parameters()) / 1e6
        logger.info(
            "%s with %s: %.2f M parameters on %s",
            cfg.MODEL.META_ARCHITECTURE,
            cfg.MODEL.BACKBONE.NAME,
            count,
            cfg.MODEL.DEVICE,
        )
        if cfg.MODEL.CHANNELS_LAST:
            model = model.to(memory_format=torch.channels_last)
        return model

    @classmethod
    def distribute(cls, cfg: CfgNode, model: nn.Module) -> nn.Module:
        """The model wrapped for several processes, or itself."""
        devices = [comm.get_local_rank()] if cfg.MODEL.DEVICE.startswith("cuda") else None
        return create_ddp_model(model, broadcast_buffers=False, device_ids=devices)

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        """See :mod:`seg_plugins.engine.solver`."""
        return build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer) -> Any:
        """See :mod:`seg_plugins.engine.solver`."""
        return build_schedule(cfg, optimizer)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> TrainLoader:
        """The sample stream, through the mapper ``INPUT.MAPPER``."""
        return build_train_loader(cfg, build_mapper(cfg, True))

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        """Detectron2's loader over every image once, through the mapper ``INPUT.MAPPER``."""
        return build_detection_test_loader(cfg, dataset_name, mapper=build_mapper(cfg, False))

    @classmethod
    def build_evaluator(
        cls, cfg: CfgNode, dataset_name: str, output_dir: str | None = None
    ) -> DatasetEvaluator:
        """The evaluator that the dataset's ``evaluator_type`` names."""
        folder = output_dir or os.path.join(cfg.OUTPUT_DIR, "inference")
        return build_evaluator(cfg, dataset_name, folder)

    @classmethod
    def test(
        cls, cfg: CfgNode, model: nn.Module, evaluators: list[DatasetEvaluator] | None = None
    ) -> dict[str, Any]:
        """Evaluate on every dataset of ``DATASETS.TEST`` and log one table of all tasks.

        Returns:
            task -> metric -> value; with several datasets, one such dict for each name. Empty in
            processes other than the main one.
        """
        results = {}
        for i, name in enumerate(cfg.DATASETS.TEST):
            evaluator = evaluators[i] if evaluators else cls.build_evaluator(cfg, name)
            found = inference_on_dataset(model, cls.build_test_loader(cfg, name), evaluator)
            if comm.is_main_process():
                results[name] = found
                logger.info("Results on %s:\n%s", name, format_results(found))
        return next(iter(results.values())) if len(results) == 1 else results

    @classmethod
    def build_checkpointer(cls, cfg: CfgNode, model: nn.Module, **states: Any) -> Checkpointer:
        """Reads ``MODEL.WEIGHTS``, writes to ``OUTPUT_DIR``."""
        return Checkpointer(model, cfg.OUTPUT_DIR, **states)

    def build_hooks(self) -> list[Any]:
        """In order of their work after a step; writers last, so that they see everything."""
        cfg = self.cfg

        def evaluate() -> dict[str, Any]:
            self._last_eval_results = self.test(cfg, self.model)
            return self._last_eval_results

        items: list[Any] = [hooks.IterationTimer(), hooks.LRScheduler()]
        if comm.is_main_process():
            period = cfg.SOLVER.CHECKPOINT_PERIOD
            items.append(hooks.PeriodicCheckpointer(self.checkpointer, period))
        items.append(hooks.EvalHook(cfg.TEST.EVAL_PERIOD, evaluate))
        if comm.is_main_process():
            items.append(BestCheckpoint(self.checkpointer, cfg))
            items.append(Pictures(cfg))
            items.append(RunRecord(cfg))
            items.append(hooks.PeriodicWriter(self.build_writers(), period=cfg.LOG_PERIOD))
        return items

    # ----------------------------------------------------------------------------------- runs

    def state_dict(self) -> dict[str, Any]:
        """Iteration, hooks, optimizer and loss scale (Detectron2 0.6 leaves the last two out)."""
        return {
            **super(DefaultTrainer, self).state_dict(),
            "_trainer": self._trainer.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`'s content."""
        super(DefaultTrainer, self).load_state_dict(state_dict)
        if "_trainer" in state_dict:
            self._trainer.load_state_dict(state_dict["_trainer"])

    def resume_or_load(self, resume: bool = True) -> None:
        """Continue from the last checkpoint of ``OUTPUT_DIR``, or load ``MODEL.WEIGHTS``."""
        super().resume_or_load(resume=resume)
        if self.start_iter:
            logger.info("Resuming at iteration %d of %d.", self.start_iter, self.max_iter)

    def train(self) -> dict[str, Any] | None:
        """Train to ``SOLVER.MAX_ITER``; the results of the last evaluation, if there was one."""
        if self.start_iter >= self.max_iter:
            logger.warning(
                "Nothing to train: iteration %d of SOLVER.MAX_ITER %d is reached; raise it.",
                self.start_iter,
                self.max_iter,
            )
            return None
        self._trainer.start(self.start_iter)
        super().train()
        return getattr(self, "_last_eval_results", None)
