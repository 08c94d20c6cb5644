"""A builder for each part of a training and an evaluation: the methods to override."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.engine import create_ddp_model
from detectron2.evaluation import DatasetEvaluator, inference_on_dataset
from detectron2.modeling import build_model
from detectron2.utils import comm
from torch import nn

from ..data import Dataset, build_mapper
from ..evaluation import build_evaluator, format_results
from ..evaluation.results import write_results
from ..modeling.model_options import apply_model_options, unused_features
from ..modeling.test_time.augmentation import with_test_time_augmentation
from .checkpoint import Checkpointer
from .checks.best_metric import BestMetric, find_best_metric
from .evaluating import InterruptibleLoader
from .process import init_worker
from .solver import StepOptions, build_optimizer, build_schedule, build_step_options
from .train_loader import build_train_loader

logger = logging.getLogger(__name__)


class Builders:
    """What :class:`~seg_plugins.engine.trainer.Trainer` is built from; it needs no training.

    The methods have the names of those of Detectron2's DefaultTrainer.
    """

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """The meta-architecture, run as :mod:`~seg_plugins.modeling.model_options` says."""
        model = build_model(cfg)
        count = sum(p.numel() for p in model.parameters()) / 1e6
        logger.info(
            "%s with %s: %.2f M parameters on %s",
            cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.BACKBONE.NAME, count, cfg.MODEL.DEVICE,
        )  # fmt: skip
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
        return build_step_options(cfg)

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer) -> Any:
        """See :mod:`seg_plugins.engine.solver`."""
        return build_schedule(cfg, optimizer)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Iterable[list[dict[str, Any]]]:
        """The sample stream, through the mapper ``INPUT.MAPPER``.

        An own one may be any iterable of this process's batches, lists of samples; see
        :class:`~seg_plugins.engine.train_loader.PlainLoader` for what a resumed run then sees.
        """
        return build_train_loader(cfg, build_mapper(cfg, True))

    @classmethod
    def build_checkpointer(cls, cfg: CfgNode, model: nn.Module, **states: Any) -> Checkpointer:
        """Reads ``MODEL.WEIGHTS``, writes to ``OUTPUT_DIR``."""
        keep, background = cfg.SOLVER.KEEP_CHECKPOINTS, cfg.SOLVER.BACKGROUND_CHECKPOINTS
        return Checkpointer(
            model, cfg.OUTPUT_DIR, keep=keep, background=background,
            image_format=cfg.INPUT.FORMAT, **states,
        )  # fmt: skip

    @classmethod
    def build_best_metric(cls, cfg: CfgNode) -> BestMetric | None:
        """The figure that ``TEST.BEST_METRIC`` names; an unknown one is an error before training.

        Building the evaluators shows, too, what is wrong with the truth.
        """
        evaluators = {name: cls.build_evaluator(cfg, name) for name in cfg.DATASETS.TEST}
        return find_best_metric(cfg, evaluators)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        """Detectron2's loader over every image once, through the mapper ``INPUT.MAPPER``."""
        loader = build_detection_test_loader(
            Dataset.get(dataset_name).records,
            mapper=build_mapper(cfg, False),
            num_workers=cfg.DATALOADER.NUM_WORKERS,
        )
        loader.worker_init_fn = init_worker
        return loader

    @classmethod
    def build_evaluator(
        cls, cfg: CfgNode, dataset_name: str, output_dir: str | None = None
    ) -> DatasetEvaluator:
        """The evaluator that the dataset's ``evaluator_type`` names.

        It writes below ``OUTPUT_DIR/inference``; of several test datasets, each has a folder.
        """
        return build_evaluator(cfg, dataset_name, output_dir or _folder(cfg, dataset_name))

    @classmethod
    def test(
        cls,
        cfg: CfgNode,
        model: nn.Module,
        evaluators: list[DatasetEvaluator] | None = None,
    ) -> dict[str, Any]:
        """Evaluate on every dataset of ``DATASETS.TEST`` and log one table of all tasks.

        With test-time augmentation where ``TEST.AUG.ENABLED``.

        Args:
            cfg: names the datasets.
            model: what is evaluated.
            evaluators: one for each dataset; those of :meth:`build_evaluator` unless given.

        Returns:
            task -> metric -> value; with several datasets, one such dict for each name. Empty in
            processes other than the main one.
        """
        model = with_test_time_augmentation(cfg, model)
        if cfg.TEST.AUG.ENABLED:
            count = len(cfg.TEST.AUG.MIN_SIZES) * (2 if cfg.TEST.AUG.FLIP else 1)
            logger.info("TEST.AUG: %d views of each image", count)
        results = {}
        for i, name in enumerate(cfg.DATASETS.TEST):
            evaluator = evaluators[i] if evaluators else cls.build_evaluator(cfg, name)
            loader = InterruptibleLoader(cls.build_test_loader(cfg, name))
            found = inference_on_dataset(model, loader, evaluator)
            if comm.is_main_process():
                results[name] = found
                write_results(found, Path(_folder(cfg, name)), name)
                logger.info("Results on %s:\n%s", name, format_results(found))
        return next(iter(results.values())) if len(results) == 1 else results


def _folder(cfg: CfgNode, dataset_name: str) -> str:
    own = dataset_name if len(cfg.DATASETS.TEST) > 1 else ""
    return os.path.join(cfg.OUTPUT_DIR, "inference", own)
