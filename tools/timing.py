"""Candidates timed side by side: in turns, so that what disturbs one disturbs all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch


def medians(
    candidates: Mapping[str, Callable[[], object]],
    repeats: int,
    device: str = "cpu",
    before: Callable[[], object] = lambda: None,
) -> dict[str, float]:
    """Median milliseconds of each candidate.

    Args:
        candidates: name -> function to time. All run once before, untimed.
        repeats: timed rounds; in each, every candidate runs once.
        device: where the work is queued; on ``cuda`` the clock waits for it.
        before: called before each run, untimed.
    """
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for repeat in range(repeats + 1):
        for name, run in candidates.items():
            before()
            _finish(device)
            start = time.perf_counter()
            run()
            _finish(device)
            if repeat:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def _finish(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
