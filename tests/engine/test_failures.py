"""Failures of the machine get a message, whatever the error itself says."""

from __future__ import annotations

from types import SimpleNamespace

from seg_plugins.engine.failures import OutOfMemoryError, explained

import pytest
import torch

BATCH = [{"image": torch.zeros(3, 40, 60)}]
LOADER = SimpleNamespace(dead_workers=lambda: [])


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "(MemoryError)"),
        (MemoryError("\n"), "(MemoryError)"),
        (MemoryError("Unable to allocate 9 GiB\nmore"), "(Unable to allocate 9 GiB)"),
        (RuntimeError("DefaultCPUAllocator: can't allocate"), "(DefaultCPUAllocator: can't alloca"),
    ],
)
def test_memory_that_ran_out_is_explained(error, reason):
    found = explained(error, LOADER, BATCH)
    assert isinstance(found, OutOfMemoryError)
    assert "40x60" in str(found)
    assert reason in str(found)


def test_other_errors_are_left_as_they_are():
    assert explained(RuntimeError(), LOADER, BATCH) is None
