"""How many threads a runtime computes with."""

from __future__ import annotations

import os
from pathlib import Path

import torch

# Of the container's control group: microseconds of processor time in each period, or "max".
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def usable_threads() -> int:
    """As many as there are processors for this process.

    PyTorch's number (``OMP_NUM_THREADS``, else the cores of the machine), but no more than the
    processors that the process is bound to, nor than its container's quota: threads without a
    processor wait for each other.
    """
    limits = [torch.get_num_threads()]
    if hasattr(os, "sched_getaffinity"):
        limits.append(len(os.sched_getaffinity(0)))
    if (quota := container_quota(_QUOTA)) is not None:
        limits.append(quota)
    return max(min(limits), 1)


def container_quota(file: Path) -> int | None:
    """Whole processors that a container may use; None without a limit."""
    try:
        time, period = file.read_text().split()
        return None if time == "max" else max(round(int(time) / int(period)), 1)
    except (OSError, ValueError, ZeroDivisionError):  # no Linux, or no control groups
        return None
