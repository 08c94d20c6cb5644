"""How a trainer evaluates a model on its test datasets."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.evaluation import DatasetEvaluator, inference_on_dataset
from detectron2.utils import comm
from torch import nn

from ..data import Dataset, build_mapper
from ..evaluation import build_evaluator, format_results
from ..evaluation.results import write_results
from .stopping import check_stop
from .worker_signals import held_back, init_worker

logger = logging.getLogger(__name__)


class InterruptibleLoader:
    """Batches for an evaluation, by workers that leave signals to this process.

    Before each batch :func:`~seg_plugins.engine.stopping.check_stop` may end the evaluation.

    Args:
        loader: PyTorch's, with ``init_worker`` as ``worker_init_fn``.
    """

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        with held_back():
            batches = iter(self.loader)
        for batch in batches:
            check_stop()
            yield batch


class Evaluates:
    """The part of :class:`~seg_plugins.engine.trainer.Trainer` that needs no training."""

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

        Args:
            cfg: names the datasets.
            model: what is evaluated.
            evaluators: one for each dataset; those of :meth:`build_evaluator` unless given.

        Returns:
            task -> metric -> value; with several datasets, one such dict for each name. Empty in
            processes other than the main one.
        """
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
