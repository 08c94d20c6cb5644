"""Batches of training samples: of the stream, or of a loader of the user's own."""

from __future__ import annotations

import logging
import reprlib
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch.utils.data import DataLoader

from ..config import ConfigError
from ..data import Dataset, DatasetError
from ..data.sample_stream import SampleStream, StreamBatches
from ..data.samplers import sample_order
from ..data.training_records import training_records
from .process import held_back, init_worker

logger = logging.getLogger(__name__)


@runtime_checkable
class BatchLoader(Protocol):
    """What a training asks of its loader; one that has all of it is resumed exactly."""

    def start_at(self, batch: int, drawn: int | None = None) -> None:
        """Let the next iterator begin with a global batch; see :meth:`TrainLoader.start_at`."""

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        """This process's batches, endlessly; processes that load start with the first one."""

    def dead_workers(self) -> list[str]:
        """For each process that loads data and has died: how."""


class TrainLoader:
    """Batches of the sample stream, loaded by processes that may die or meet damaged files.

    Iterable over this process's batches (lists of samples).

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
            except (OSError, EOFError):
                # A worker's connections end a moment before the system calls it dead.
                end = time.monotonic() + 5
                while not self.dead_workers() and time.monotonic() < end:
                    time.sleep(0.01)
                raise
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


class PlainLoader:
    """A loader of the user's own: any iterable of batches, each a list of samples (dicts).

    It begins anew with every start of a training, and at its end where it has one.

    Args:
        batches: gives the batches of this process.
    """

    def __init__(self, batches: Iterable[Any]) -> None:
        self.batches = batches

    def start_at(self, batch: int, drawn: int | None = None) -> None:
        """Say that the batches are the first ones, whatever the iteration."""
        logger.info(
            "The batches of iteration %d and on come from a %s, which begins with its first one: "
            "a training that is resumed sees other samples than one without a break",
            batch, type(self.batches).__name__,
        )  # fmt: skip

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        while True:
            empty = True
            for batch in self.batches:
                empty = False
                if not _is_batch(batch):
                    raise ConfigError(
                        f"build_train_loader: a {type(self.batches).__name__} gave "
                        f"{reprlib.repr(batch)}. A batch is a list of one sample (dict) or more; "
                        "PyTorch's DataLoader gives such lists with collate_fn=list"
                    )
                yield list(batch)
            if empty:
                raise ConfigError(
                    f"build_train_loader: a {type(self.batches).__name__} gave no batch, at the "
                    "start or after its end. A generator ends for good: return a list, a "
                    "DataLoader or another object with __iter__, or let the generator be endless"
                )

    def dead_workers(self) -> list[str]:
        """Nothing is known of them."""
        return []


def _is_batch(batch: Any) -> bool:
    samples = batch if isinstance(batch, (list, tuple)) else ()
    return bool(samples) and all(isinstance(sample, Mapping) for sample in samples)


def as_batch_loader(loader: Iterable[Any]) -> BatchLoader:
    """A loader as a training needs it; one that cannot be told where to start is wrapped."""
    return loader if isinstance(loader, BatchLoader) else PlainLoader(loader)


def build_train_loader(cfg: CfgNode, mapper: Callable[..., Any]) -> TrainLoader:
    """The training stream over ``DATASETS.TRAIN`` with ``DATALOADER``'s settings.

    Raises:
        ConfigError: see :func:`~seg_plugins.data.samplers.sample_order`; or a batch that does not
            divide among the processes.
        DatasetError: see `training_records`.
    """
    records, order = sample_order(cfg, training_records(cfg))
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
        order=order,
        aspect_ratios=ratios,
    )
    max_damaged = cfg.DATALOADER.MAX_DAMAGED
    stream = SampleStream(
        records=records, mapper=mapper, seed=cfg.SEED, order=order,
        replace_damaged=max_damaged > 0,
    )  # fmt: skip
    # The stream has packed them; as Python objects those of large sets take gigabytes.
    for name in set(cfg.DATASETS.TRAIN) - set(cfg.DATASETS.TEST):
        Dataset.forget(name)
    return TrainLoader(stream, batches, cfg.DATALOADER.NUM_WORKERS, max_damaged)
