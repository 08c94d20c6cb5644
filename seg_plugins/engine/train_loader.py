"""Batches of the sample stream, loaded by processes that may die or meet damaged files."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch.utils.data import DataLoader

from ..config import ConfigError
from ..data import Dataset, DatasetError
from ..data.training_records import training_records
from .data_stream import SampleStream, StreamBatches
from .worker_signals import held_back, init_worker

logger = logging.getLogger(__name__)


class TrainLoader:
    """Iterable over this process's batches (lists of samples).

    Args:
        stream: of samples.
        batches: of positions.
        num_workers: processes that load data; 0 loads in this one.
        max_damaged: share of the training set that may be damaged and replaced, at least one
            file if not 0.
    """

    def __init__(
        self,
        stream: SampleStream,
        batches: StreamBatches,
        num_workers: int,
        max_damaged: float = 0.0,
    ) -> None:
        self.stream, self.batches = stream, batches
        self.max_damaged = max(int(max_damaged * len(stream)), 1) if max_damaged else 0
        self.damaged: set[str] = set()
        stream.at = torch.full((num_workers,), -1).share_memory_() if num_workers else None
        self._iterator: Any = None
        self.loader = DataLoader(
            stream,
            batch_sampler=batches,
            num_workers=num_workers,
            collate_fn=_as_list,
            worker_init_fn=init_worker,
            persistent_workers=num_workers > 0,
            # Otherwise starting the loader would draw from the model's random numbers.
            generator=torch.Generator(),
        )

    def start_at(self, batch: int, drawn: int | None = None) -> None:
        """Let the next iterator begin with a global batch.

        Args:
            batch: its number, from 0.
            drawn: samples before it, where batches had another size then.
        """
        self.batches.skipped = batch * self.batches.batch_size if drawn is None else drawn

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        with held_back():
            self._iterator = iter(self.loader)
        while True:
            try:
                batch = next(self._iterator)
            except DatasetError as error:
                # A worker's traceback comes with it: the last line says it all.
                raise DatasetError(str(error).rpartition("DatasetError: ")[2].strip()) from None
            for sample in batch:
                self._note(sample.pop("damaged", ()))
            yield batch

    def _note(self, damaged: Iterable[str]) -> None:
        for text in damaged:
            if text in self.damaged:
                continue
            self.damaged.add(text)
            logger.warning(
                "Replaced by another sample (%d of at most %d): %s",
                len(self.damaged), self.max_damaged, text,
            )  # fmt: skip
        if len(self.damaged) > self.max_damaged:
            raise DatasetError(
                f"{len(self.damaged)} damaged samples, more than DATALOADER.MAX_DAMAGED allows "
                f"({self.max_damaged} of {len(self.stream)}): {'; '.join(sorted(self.damaged))}"
            )

    def dead_workers(self) -> list[str]:
        """For each data worker that has died: how, and the sample it was at."""
        found = []
        for number, worker in enumerate(getattr(self._iterator, "_workers", ())):
            if worker.is_alive() or not worker.exitcode:
                continue
            position = int(self.stream.at[number]) if self.stream.at is not None else -1
            at = "before its first sample"
            if position >= 0:
                file = self.stream.record(position)[0].get("file_name", "?")
                at = f"at stream position {position}, {file}"
            how = f"exit status {worker.exitcode}"
            if worker.exitcode < 0:
                how = f"signal {-worker.exitcode} ({signal.strsignal(-worker.exitcode)})"
            found.append(f"Data worker {number} (process {worker.pid}) died of {how}, {at}")
        return found


def _as_list(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return samples


def build_train_loader(cfg: CfgNode, mapper: Callable[..., Any]) -> TrainLoader:
    """The training stream over ``DATASETS.TRAIN`` with ``DATALOADER``'s settings.

    Raises:
        ConfigError: a sampler other than ``TrainingSampler``, or a batch that does not divide
            among the processes.
        DatasetError: see `training_records`.
    """
    if cfg.DATALOADER.SAMPLER_TRAIN != "TrainingSampler":
        raise ConfigError(
            f"DATALOADER.SAMPLER_TRAIN {cfg.DATALOADER.SAMPLER_TRAIN} is not supported here: "
            "use TrainingSampler"
        )
    records = training_records(cfg)
    if len(records) < cfg.SOLVER.IMS_PER_BATCH:
        logger.warning(
            "The training set has %d images, fewer than SOLVER.IMS_PER_BATCH %d: a batch holds an "
            "image more than once", len(records), cfg.SOLVER.IMS_PER_BATCH,
        )  # fmt: skip
    ratios = None
    if cfg.DATALOADER.ASPECT_RATIO_GROUPING and all("width" in r for r in records):
        ratios = np.array([r["width"] / r["height"] for r in records])
        if (ratios > 1).all() or (ratios <= 1).all():
            ratios = None  # one group: grouping would change nothing
    batches = StreamBatches(
        batch_size=cfg.SOLVER.IMS_PER_BATCH,
        rank=comm.get_rank(),
        world_size=comm.get_world_size(),
        seed=cfg.SEED,
        aspect_ratios=ratios,
    )
    max_damaged = cfg.DATALOADER.MAX_DAMAGED
    stream = SampleStream(
        records=records, mapper=mapper, seed=cfg.SEED, replace_damaged=max_damaged > 0
    )
    # The stream has packed them; as Python objects those of large sets take gigabytes.
    for name in set(cfg.DATASETS.TRAIN) - set(cfg.DATASETS.TEST):
        Dataset.forget(name)
    return TrainLoader(stream, batches, cfg.DATALOADER.NUM_WORKERS, max_damaged)
