"""The metric of an exported file on a validation set, beside that of its model."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import nn

from ..data import Dataset, apply_custom_dataset
from ..data.datasets.folder_pairs import apply_folder_datasets
from ..engine import Trainer
from ..engine.checks.consistency import check_datasets
from ..tasks import TASKS
from .systems import TensorSystem
from .verify import ExportError, Runner

#: Points that a file of the model's own precision may differ by.
METRIC_TOLERANCE = 0.1


@dataclass(frozen=True)
class MetricCheck:
    """One metric of model and file.

    Attributes:
        dataset: name of the validation set.
        name: ``group/metric``, as ``sem_seg/mIoU``.
        model: of the model, in points (0 to 100).
        file: of the exported file.
    """

    dataset: str
    name: str
    model: float
    file: float

    @property
    def loss(self) -> float:
        """Points that the file lies below the model."""
        return self.model - self.file

    def __str__(self) -> str:
        """One line."""
        return (
            f"{self.dataset}: {self.name} {self.model:.2f} of the model, {self.file:.2f} of the "
            f"file ({self.file - self.model:+.2f})"
        )


class FileSystem(nn.Module):
    """An exported file in the place of its model, for evaluators."""

    def __init__(self, system: TensorSystem, run: Runner) -> None:
        super().__init__()
        self.system, self.run = system, run

    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """What the model gives in inference, image by image."""
        results = []
        for sample in batched_inputs:
            image = sample["image"].float()
            found = self.run(image[None] if self.system.batched else image)
            results.append(self.system.result(found, sample))
        return results


class Metrics:
    """Evaluates on one validation set; the model once.

    Args:
        cfg: the model's configuration.
        system: the model.
        dataset: a registered name.

    Raises:
        ConfigError: there is no such dataset, or its classes are not the model's.
        DatasetError: its files are missing.
    """

    def __init__(self, cfg: CfgNode, system: TensorSystem, dataset: str) -> None:
        self.cfg, self.system, self.dataset = cfg.clone(), system, dataset
        self.cfg.defrost()
        apply_custom_dataset(self.cfg)
        apply_folder_datasets(self.cfg)
        self.cfg.DATASETS.TRAIN, self.cfg.DATASETS.TEST = (), (dataset,)
        check_datasets(self.cfg)
        self.cfg.TEST.BOOTSTRAP, self.cfg.DATALOADER.NUM_WORKERS = 0, 0
        self.records = Dataset.get(dataset).records
        self._of_model: dict[str, float] | None = None

    def samples(self, count: int) -> list[dict[str, Any]]:
        """The first images as the model is given them, evenly spread over the dataset."""
        step = max(len(self.records) // count, 1)
        loader = Trainer.build_test_loader(self.cfg, self.dataset)
        mapper, records = loader.dataset, range(0, len(self.records), step)
        return [mapper[i] for i in list(records)[:count]]

    def of_file(self, run: Runner) -> dict[str, float]:
        """Main metrics of a file, by name."""
        return self._measure(FileSystem(self.system, run))

    @property
    def of_model(self) -> dict[str, float]:
        """Main metrics of the model, by name."""
        if self._of_model is None:
            self._of_model = self._measure(self.system.model)
        return self._of_model

    def compare(self, run: Runner) -> list[MetricCheck]:
        """Every main metric of both.

        Raises:
            ExportError: the dataset measures nothing that the model gives.
        """
        found = self.of_file(run)
        if not found:
            raise ExportError(f"the evaluation on {self.dataset} gives no mIoU, AP or PQ")
        return [
            MetricCheck(self.dataset, name, self.of_model[name], value)
            for name, value in found.items()
        ]

    @torch.no_grad()
    def _measure(self, model: nn.Module) -> dict[str, float]:
        with tempfile.TemporaryDirectory(prefix="seg_plugins.metric.") as folder:
            self.cfg.OUTPUT_DIR = folder
            return main_figures(Trainer.test(self.cfg, model.eval()))


def main_figures(results: Mapping[str, Any]) -> dict[str, float]:
    """The main metric of each task in an evaluation's results."""
    figures = {}
    for task in TASKS:
        for name in task.metrics:
            group, _, metric = name.partition("/")
            if metric in results.get(group, {}):
                figures[name] = float(results[group][metric])
    return figures


def require(
    checks: list[MetricCheck], allowed: float, report: Callable[[str], None], advice: str
) -> None:
    """Report each; raise where one falls by more than `allowed` points.

    Raises:
        ExportError: with `advice`. NaN counts as a fall.
    """
    for check in checks:
        report(str(check))
    worst = max(checks, key=lambda check: check.loss)
    if not all(check.loss <= allowed for check in checks):
        raise ExportError(
            f"{worst.name} falls by {worst.loss:.2f} points on {worst.dataset}; {allowed} are "
            f"allowed. {advice}"
        )
