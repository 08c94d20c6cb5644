"""The stream of samples: a pure function of seed and position."""

from __future__ import annotations

import itertools
import os
import random
import signal

from seg_plugins.config import ConfigError
from seg_plugins.data import DatasetError
from seg_plugins.data.sample_order import SampleOrder
from seg_plugins.data.sample_stream import SampleStream, StreamBatches
from seg_plugins.engine.train_loader import TrainLoader

import numpy as np
import pytest
import torch


def records(n):
    return [{"file_name": f"{i}.png", "width": 10 + 10 * (i % 2), "height": 15} for i in range(n)]


def mapper(record, rng=None):
    return {**record, "crop": int(rng.integers(1000))}


def global_mapper(record):
    """Draws from global state, as Detectron2's mappers do."""
    crop = (random.random(), np.random.rand(), torch.rand(()).item())
    return {**record, "crop": crop}


def take(loader, count):
    return [
        (s["file_name"], s["crop"], s["stream_position"])
        for batch in itertools.islice(iter(loader), count)
        for s in batch
    ]


# Of ten records; the sum is 14.1: epochs of different lengths.
FACTORS = [1, 1, 1, 1.3, 1, 2.6, 1, 1, 3.2, 1]
ORDERS = pytest.mark.parametrize("factors", [None, FACTORS])


def loader(map_function=mapper, *, workers=0, rank=0, world_size=1, start=0, batch=4, factors=None):
    order = SampleOrder(3, 10, factors)
    stream = SampleStream(records=records(10), mapper=map_function, seed=3, order=order)
    batches = StreamBatches(batch_size=batch, rank=rank, world_size=world_size)
    result = TrainLoader(stream, batches, workers)
    result.start_at(start)
    return result


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on two cores
@pytest.mark.parametrize(
    ("map_function", "factors"), [(mapper, None), (global_mapper, None), (mapper, FACTORS)]
)
def test_worker_count_changes_nothing(map_function, factors):
    expected = take(loader(map_function, factors=factors), 5)
    assert len({crop for _, crop, _ in expected}) > 15, "augmentation does not vary"
    for workers in (1, 3):
        assert take(loader(map_function, workers=workers, factors=factors), 5) == expected


@ORDERS
def test_a_restart_continues_the_stream(factors):
    whole = take(loader(factors=factors), 30)
    for first in (4, 25):
        assert take(loader(start=first, factors=factors), 5) == whole[4 * first :][:20]


@ORDERS
def test_processes_share_each_global_batch(factors):
    whole = take(loader(factors=factors), 3)
    parts = [take(loader(rank=r, world_size=2, factors=factors), 3) for r in range(2)]
    merged = [sample for i in range(3) for part in parts for sample in part[2 * i : 2 * i + 2]]
    assert merged == whole


@ORDERS
def test_aspect_ratio_groups_are_pure_and_resume(factors):
    order = SampleOrder(3, 10, factors)
    ratios = np.array([r["width"] / r["height"] for r in records(10)])

    def batches(first, count, rank=0, world_size=1):
        sampler = StreamBatches(
            batch_size=4,
            order=SampleOrder(3, 10, factors),
            aspect_ratios=ratios,
            rank=rank,
            world_size=world_size,
        )
        sampler.skipped = 4 * first
        return list(itertools.islice(iter(sampler), count))

    whole = batches(0, 20)
    for batch in whole:
        assert len({ratios[order[p]] > 1 for p in batch}) == 1
    positions = [p for batch in whole for p in batch]
    assert len(set(positions)) == len(positions), "a position was used twice"
    assert batches(7, 13) == whole[7:]
    halves = [batches(0, 20, rank, 2) for rank in range(2)]
    assert [a + b for a, b in zip(*halves, strict=True)] == whole


def test_refused_samples_are_replaced_deterministically():
    def refuse_odd(record, rng=None):
        keep = int(record["file_name"][:-4]) % 2 == 0
        return {**record, "crop": int(rng.integers(1000))} if keep else None

    first, second = (take(loader(refuse_odd), 5) for _ in range(2))
    assert first == second
    assert {int(name[:-4]) % 2 for name, _, _ in first} == {0}
    with pytest.raises(ConfigError, match="refused 100 samples"):
        SampleStream(records=records(3), mapper=lambda r, rng=None: None, seed=0)[0]


def test_global_random_state_is_left_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    take(loader(global_mapper), 2)
    assert torch.equal(torch.rand(3), expected)


def test_mistakes_name_the_fix():
    with pytest.raises(ConfigError, match=r"IMS_PER_BATCH 5 cannot .* 2 processes: use 4"):
        StreamBatches(batch_size=5, world_size=2)
    with pytest.raises(ConfigError, match="empty"):
        SampleStream(records=[], mapper=mapper, seed=0)


def damaged_mapper(record, rng=None):
    """Every file whose number is 3 is damaged."""
    if record["file_name"] == "3.png":
        raise DatasetError("3.png: damaged image (truncated)")
    return mapper(record, rng)


def damaged_loader(workers, max_damaged):
    stream = SampleStream(
        records=records(10), mapper=damaged_mapper, seed=3, replace_damaged=max_damaged > 0
    )
    return TrainLoader(stream, StreamBatches(batch_size=4), workers, max_damaged)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_sample_is_named(workers):
    with pytest.raises(DatasetError, match=r"^3\.png: damaged image .truncated. .stream position"):
        take(damaged_loader(workers, 0.0), 5)


@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_samples_are_replaced_up_to_a_cap(workers, caplog):
    made = damaged_loader(workers, 0.1)
    found = take(made, 8)
    assert "3.png" not in {name for name, _, _ in found}
    assert found == take(damaged_loader(0, 0.1), 8)
    assert caplog.text.count("Replaced by another sample (1 of at most 1): 3.png") <= 2
    with pytest.raises(DatasetError, match=r"2 damaged samples, more than DATALOADER\.MAX_DAMAGED"):
        made._note(["4.png: damaged"] * 2)


def killing_mapper(record, rng=None):
    if record["file_name"] == "7.png":
        os.kill(os.getpid(), signal.SIGKILL)
    return mapper(record, rng)


def test_a_killed_worker_is_named_with_its_sample():
    made = loader(killing_mapper, workers=1)
    with pytest.raises(RuntimeError, match=r"exited unexpectedly|killed by signal"):
        take(made, 10)
    order = SampleOrder(3, 10)
    position = next(i for i in range(40) if order[i] == 7)
    (text,) = made.dead_workers()
    assert "Data worker 0" in text
    assert "signal 9 (Killed)" in text
    assert text.endswith(f"at stream position {position}, 7.png")


def test_a_broken_connection_waits_for_the_death_that_broke_it(monkeypatch):
    """The system closes a worker's connections before it calls the worker dead."""

    def broken():
        raise ConnectionResetError
        yield

    found = loader()
    found.loader = broken()
    deaths = iter([[], [], ["Data worker 0 died"]])
    monkeypatch.setattr(found, "dead_workers", lambda: next(deaths))
    with pytest.raises(ConnectionResetError):
        next(iter(found))
    assert next(deaths, "asked until there was one") == "asked until there was one"
