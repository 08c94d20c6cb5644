"""Failures of the machine, explained: memory that ran out, a data worker that died."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..io.errors import SegPluginsError
from .train_loader import TrainLoader


class OutOfMemoryError(SegPluginsError, RuntimeError):
    """Memory ran out; the message names sizes and the settings to lower."""


class DataWorkerError(SegPluginsError, RuntimeError):
    """A process that loads data has died; the message names the sample it was at."""


def explained(
    error: Exception, loader: TrainLoader, batch: Sequence[dict[str, Any]]
) -> Exception | None:
    """A clearer error for one that came up in an iteration, or None where it says it all."""
    if isinstance(error, (DataWorkerError, OutOfMemoryError)):
        return None  # explained already
    dead = loader.dead_workers()
    if dead:
        return DataWorkerError(
            f"{'; '.join(dead)}. Where the system ended it to save memory, lower "
            "DATALOADER.NUM_WORKERS or the size of the images; --resume continues the training."
        )
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or _is_cpu_memory(error):
        return OutOfMemoryError(_memory_message(error, batch))
    return None


def _is_cpu_memory(error: Exception) -> bool:
    return "DefaultCPUAllocator" in str(error)


def _memory_message(error: Exception, batch: Sequence[dict[str, Any]]) -> str:
    sizes = [tuple(s["image"].shape[-2:]) for s in batch if torch.is_tensor(s.get("image"))]
    shown = ", ".join(f"{height}x{width}" for height, width in sizes[:8]) or "not loaded yet"
    used = ""
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        peak = torch.cuda.max_memory_allocated()
        used = (
            f" Peak of this process: {peak / 2**30:.1f} GiB; {free / 2**30:.1f} of "
            f"{total / 2**30:.1f} GiB are free."
        )
    # Python's own MemoryError says nothing.
    reason = next((line[:200] for line in str(error).splitlines() if line.strip()), "MemoryError")
    return (
        f"Memory ran out on {len(batch)} images in this process (height x width: {shown}).{used} "
        "Raise SOLVER.ACCUMULATE (the same batch in parts), set SOLVER.AMP.ENABLED True or "
        "MODEL.ACTIVATION_CHECKPOINTING True, or lower SOLVER.IMS_PER_BATCH, INPUT.CROP.SIZE or "
        f"INPUT.MIN_SIZE_TRAIN. ({reason})"
    )
