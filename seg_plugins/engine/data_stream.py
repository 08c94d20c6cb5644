"""The endless stream of training samples: sample = pure function of (seed, stream position).

The order of the samples and the random numbers of their augmentation depend on nothing but the
seed and the position in the stream, so neither the number of data-loader workers nor the number
of processes nor an interruption changes what the model sees. Global batch ``i`` takes the next
``IMS_PER_BATCH`` positions; each process takes its slice of them.
"""

from __future__ import annotations

import copy
import inspect
import logging
import random
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetFromList, get_detection_dataset_dicts
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from ..config import ConfigError
from ..data import DatasetError

logger = logging.getLogger(__name__)

# A mapper may refuse a sample (None); this many other samples are tried in its place.
MAX_ATTEMPTS = 100


class SampleStream(Dataset):
    """``stream[position]`` is the mapped sample at that position; length is unbounded.

    Args:
        records: dataset dicts in Detectron2's format.
        mapper: ``mapper(record, rng=generator)``, or ``mapper(record)`` for one that draws from
            global random state (Detectron2's own), which is then seeded for the call.
        seed: non-negative integer.
        replace_damaged: put another sample in the place of one whose files are damaged, and
            name the file under ``damaged``; else that is an error.
    """

    def __init__(
        self,
        *,
        records: Sequence[dict[str, Any]],
        mapper: Callable[..., Any],
        seed: int,
        replace_damaged: bool = False,
    ) -> None:
        if not len(records):
            raise ConfigError("The training set is empty (after filtering): nothing to train on.")
        # Serialised once: data-loader workers share the memory instead of copying it.
        self.records = DatasetFromList(list(records), copy=False, serialize=True)
        self.mapper = mapper
        self.seed = seed
        self.replace_damaged = replace_damaged
        self.takes_rng = "rng" in inspect.signature(mapper).parameters
        # What each data worker is at, for the message when it dies.
        self.at: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, position: int) -> dict[str, Any]:
        """The sample at ``position``.

        Raises:
            ConfigError: the mapper refused every try.
            DatasetError: a damaged file, unless those are replaced.
        """
        worker = get_worker_info()
        if self.at is not None and worker is not None:
            self.at[worker.id] = position
        damaged: list[str] = []
        for attempt in range(MAX_ATTEMPTS):
            record, rng = self.record(position, attempt)
            try:
                sample = self._map(record, rng)
            except DatasetError as error:
                if not self.replace_damaged:
                    raise DatasetError(f"{error} (stream position {position})") from None
                damaged.append(str(error))
                continue
            if sample is not None:
                sample["stream_position"] = position
                if damaged:
                    sample["damaged"] = damaged
                return sample
        raise ConfigError(
            f"The mapper refused {MAX_ATTEMPTS} samples in a row: is the training set annotated?"
        )

    def record(self, position: int, attempt: int = 0) -> tuple[dict[str, Any], np.random.Generator]:
        """The record that is tried at a position, a copy, and the generator for its mapping."""
        rng = np.random.Generator(np.random.Philox(key=[self.seed, position * 128 + attempt]))
        index = record_index(self.seed, position, len(self.records))
        if attempt:
            index = int(rng.integers(len(self.records)))
        return copy.deepcopy(self.records[index]), rng

    def _map(self, record: dict[str, Any], rng: np.random.Generator) -> dict[str, Any] | None:
        if self.takes_rng:
            return self.mapper(record, rng=rng)
        with _GlobalRandomState(int(rng.integers(2**32))):
            return self.mapper(record)


class _GlobalRandomState:
    """Seed Python's, NumPy's and torch's global generators for a block, then restore them."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __enter__(self) -> None:
        self.saved = random.getstate(), np.random.get_state(), torch.get_rng_state()
        random.seed(self.seed)
        np.random.seed(self.seed)
        torch.manual_seed(self.seed)

    def __exit__(self, *_: object) -> None:
        random.setstate(self.saved[0])
        np.random.set_state(self.saved[1])
        torch.set_rng_state(self.saved[2])


_permutations: dict[tuple[int, int, int], np.ndarray] = {}


def record_index(seed: int, position: int, size: int) -> int:
    """Which record stands at a position: a new permutation of all records for each epoch."""
    epoch, offset = divmod(position, size)
    key = (seed, epoch, size)
    if key not in _permutations:
        if len(_permutations) > 4:
            _permutations.clear()
        # A key of its own, so that the order is independent of the augmentations' numbers.
        rng = np.random.Generator(np.random.Philox(key=[seed + 2**32, epoch]))
        _permutations[key] = rng.permutation(size)
    return int(_permutations[key][offset])


class StreamBatches(Sampler[list[int]]):
    """Positions of this process's part of each global batch, endlessly.

    Args:
        batch_size: samples in a global batch, over all processes.
        rank, world_size: this process, and how many there are.
        seed, aspect_ratios: with the width / height of each record given, a global batch holds
            only wide or only high images, which saves padding; else positions come in order.

    Attributes:
        skipped: samples that were drawn before; iteration begins after them.
    """

    def __init__(
        self,
        *,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        aspect_ratios: np.ndarray | None = None,
    ) -> None:
        if batch_size % world_size:
            raise ConfigError(
                f"SOLVER.IMS_PER_BATCH {batch_size} cannot be split over {world_size} processes: "
                f"use {max(world_size, batch_size // world_size * world_size)}"
            )
        self.batch_size, self.seed, self.aspect_ratios = batch_size, seed, aspect_ratios
        share = batch_size // world_size
        self.part = slice(rank * share, (rank + 1) * share)
        self.skipped = 0

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self._global_batches():
            yield batch[self.part]

    def _global_batches(self) -> Iterator[list[int]]:
        if self.aspect_ratios is None:
            first = self.skipped
            while True:
                yield list(range(first, first + self.batch_size))
                first += self.batch_size
        buckets: tuple[list[int], list[int]] = ([], [])
        position = drawn = 0
        while True:
            record = record_index(self.seed, position, len(self.aspect_ratios))
            bucket = buckets[int(self.aspect_ratios[record] > 1)]
            bucket.append(position)
            position += 1
            if len(bucket) == self.batch_size:
                if drawn >= self.skipped:
                    yield bucket[:]
                drawn += self.batch_size
                bucket.clear()


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
            worker_init_fn=_one_thread,
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


def _one_thread(_: int) -> None:
    """Workers share the cores with training: more threads in each only get in the way."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def build_train_loader(cfg: CfgNode, mapper: Callable[..., Any]) -> TrainLoader:
    """The training stream over ``DATASETS.TRAIN`` with ``DATALOADER``'s settings.

    Raises:
        ConfigError: a sampler other than ``TrainingSampler``, an empty set, or a batch that does
            not divide among the processes.
    """
    if cfg.DATALOADER.SAMPLER_TRAIN != "TrainingSampler":
        raise ConfigError(
            f"DATALOADER.SAMPLER_TRAIN {cfg.DATALOADER.SAMPLER_TRAIN} is not supported here: "
            "use TrainingSampler"
        )
    records = get_detection_dataset_dicts(
        cfg.DATASETS.TRAIN,
        filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
        min_keypoints=0,
        proposal_files=None,
    )
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
    return TrainLoader(stream, batches, cfg.DATALOADER.NUM_WORKERS, max_damaged)
