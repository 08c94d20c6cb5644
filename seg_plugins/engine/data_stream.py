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

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetFromList, get_detection_dataset_dicts
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset, Sampler

from ..config import ConfigError

# A mapper may refuse a sample (None); this many other samples are tried in its place.
MAX_ATTEMPTS = 100


class SampleStream(Dataset):
    """``stream[position]`` is the mapped sample at that position; length is unbounded.

    Args:
        records: dataset dicts in Detectron2's format.
        mapper: ``mapper(record, rng=generator)``, or ``mapper(record)`` for one that draws from
            global random state (Detectron2's own), which is then seeded for the call.
        seed: non-negative integer.
    """

    def __init__(
        self, *, records: Sequence[dict[str, Any]], mapper: Callable[..., Any], seed: int
    ) -> None:
        if not len(records):
            raise ConfigError("The training set is empty (after filtering): nothing to train on.")
        # Serialised once: data-loader workers share the memory instead of copying it.
        self.records = DatasetFromList(list(records), copy=False, serialize=True)
        self.mapper = mapper
        self.seed = seed
        self.takes_rng = "rng" in inspect.signature(mapper).parameters

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, position: int) -> dict[str, Any]:
        """The sample at ``position``; raises ConfigError when the mapper refuses every try."""
        for attempt in range(MAX_ATTEMPTS):
            rng = np.random.Generator(np.random.Philox(key=[self.seed, position * 128 + attempt]))
            index = record_index(self.seed, position, len(self.records))
            if attempt:
                index = int(rng.integers(len(self.records)))
            sample = self._map(copy.deepcopy(self.records[index]), rng)
            if sample is not None:
                sample["stream_position"] = position
                return sample
        raise ConfigError(
            f"The mapper refused {MAX_ATTEMPTS} samples in a row: is the training set annotated?"
        )

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
    """Positions of this process's part of each global batch, endlessly, from ``first_batch`` on.

    Args:
        batch_size: samples in a global batch, over all processes.
        rank, world_size: this process, and how many there are.
        seed, aspect_ratios: with the width / height of each record given, a global batch holds
            only wide or only high images, which saves padding; else positions come in order.
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
        self.first_batch = 0

    def __iter__(self) -> Iterator[list[int]]:
        for number, batch in enumerate(self._global_batches()):
            if number >= self.first_batch:
                yield batch[self.part]

    def _global_batches(self) -> Iterator[list[int]]:
        if self.aspect_ratios is None:
            first = 0
            while True:
                yield list(range(first, first + self.batch_size))
                first += self.batch_size
        buckets: tuple[list[int], list[int]] = ([], [])
        position = 0
        while True:
            record = record_index(self.seed, position, len(self.aspect_ratios))
            bucket = buckets[int(self.aspect_ratios[record] > 1)]
            bucket.append(position)
            position += 1
            if len(bucket) == self.batch_size:
                yield bucket[:]
                bucket.clear()


class TrainLoader:
    """Iterable over this process's batches (lists of samples); starts at ``first_batch``."""

    def __init__(self, stream: SampleStream, batches: StreamBatches, num_workers: int) -> None:
        self.stream, self.batches = stream, batches
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

    def start_at(self, batch: int) -> None:
        """Let the next iterator begin with global batch ``batch`` (batches are counted from 0)."""
        self.batches.first_batch = batch

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        return iter(self.loader)


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
    stream = SampleStream(records=records, mapper=mapper, seed=cfg.SEED)
    return TrainLoader(stream, batches, cfg.DATALOADER.NUM_WORKERS)
