"""The endless stream of training samples: sample = pure function of (seed, stream position).

The order of the samples and the random numbers of their augmentation depend on nothing but the
seed and the position in the stream, so neither the number of data-loader workers nor the number
of processes nor an interruption changes what the model sees. Global batch ``i`` takes the next
``IMS_PER_BATCH`` positions; each process takes its slice of them.
"""

from __future__ import annotations

import copy
import inspect
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data import DatasetFromList
from torch.utils.data import Dataset, Sampler, get_worker_info

from ..config import ConfigError
from .errors import DatasetError
from .sample_order import SampleOrder

# A mapper may refuse a sample (None); this many other samples are tried in its place.
MAX_ATTEMPTS = 100


class SampleStream(Dataset):
    """``stream[position]`` is the mapped sample at that position; length is unbounded.

    Args:
        records: dataset dicts in Detectron2's format.
        mapper: ``mapper(record, rng=generator)``, or ``mapper(record)`` for one that draws from
            global random state (Detectron2's own), which is then seeded for the call.
        seed: non-negative integer.
        order: of the records; each epoch is a permutation of them unless it is given.
        replace_damaged: put another sample in the place of one whose files are damaged, and
            name the file under ``damaged``; else that is an error.
    """

    def __init__(
        self,
        *,
        records: Sequence[dict[str, Any]],
        mapper: Callable[..., Any],
        seed: int,
        order: SampleOrder | None = None,
        replace_damaged: bool = False,
    ) -> None:
        if not len(records):
            raise ConfigError("The training set is empty (after filtering): nothing to train on.")
        # Serialised once: data-loader workers share the memory instead of copying it.
        self.records = DatasetFromList(list(records), copy=False, serialize=True)
        self.mapper = mapper
        self.seed = seed
        self.order = order or SampleOrder(seed, len(records))
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
        index = self.order.draw(rng) if attempt else self.order[position]
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


class StreamBatches(Sampler[list[int]]):
    """Positions of this process's part of each global batch, endlessly.

    Args:
        batch_size: samples in a global batch, over all processes.
        rank, world_size: this process, and how many there are.
        order, aspect_ratios: with the width / height of each record given, and their order, a
            global batch holds only wide or only high images, which saves padding; else positions
            come in order.

    Attributes:
        skipped: samples that were drawn before; iteration begins after them.
    """

    def __init__(
        self,
        *,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        order: SampleOrder | None = None,
        aspect_ratios: np.ndarray | None = None,
    ) -> None:
        if batch_size % world_size:
            raise ConfigError(
                f"SOLVER.IMS_PER_BATCH {batch_size} cannot be split over {world_size} processes: "
                f"use {max(world_size, batch_size // world_size * world_size)}"
            )
        self.batch_size, self.order, self.aspect_ratios = batch_size, order, aspect_ratios
        share = batch_size // world_size
        self.part = slice(rank * share, (rank + 1) * share)
        self.skipped = 0

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self._global_batches():
            yield batch[self.part]

    def _global_batches(self) -> Iterator[list[int]]:
        if self.aspect_ratios is None or self.order is None:
            first = self.skipped
            while True:
                yield list(range(first, first + self.batch_size))
                first += self.batch_size
        buckets: tuple[list[int], list[int]] = ([], [])
        position = drawn = 0
        while True:
            bucket = buckets[int(self.aspect_ratios[self.order[position]] > 1)]
            bucket.append(position)
            position += 1
            if len(bucket) == self.batch_size:
                if drawn >= self.skipped:
                    yield bucket[:]
                drawn += self.batch_size
                bucket.clear()
