"""How iterations are made: precision, parts of a batch, clipping, what to do about NaN."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import Tensor

from ..config import ConfigError

logger = logging.getLogger(__name__)

AMP_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
Clip = Callable[[list[Tensor], Tensor], None]


def amp_dtype(cfg: CfgNode) -> torch.dtype | None:
    """The autocast type of ``SOLVER.AMP``, or None for full precision.

    Raises:
        ConfigError: an unknown name, or float16 on a CPU, which has no loss scaling there.
    """
    amp = cfg.SOLVER.AMP
    if not amp.ENABLED:
        return None
    if amp.DTYPE not in AMP_DTYPES:
        raise ConfigError(f"SOLVER.AMP.DTYPE {amp.DTYPE} is not one of {', '.join(AMP_DTYPES)}")
    if amp.DTYPE == "float16" and cfg.MODEL.DEVICE == "cpu":
        raise ConfigError("SOLVER.AMP.DTYPE float16 needs a GPU: use bfloat16 on the CPU")
    if cfg.MODEL.DEVICE == "cpu" and not has_fast_bfloat16():
        logger.warning(
            "SOLVER.AMP: this processor has no bfloat16 instructions and would be many times "
            "slower with them than without: computing in float32"
        )
        return None
    return AMP_DTYPES[amp.DTYPE]


def has_fast_bfloat16() -> bool:
    """Whether oneDNN, which computes convolutions on the CPU, has bfloat16 kernels for this one.

    Elsewhere PyTorch still computes in it, many times as slowly as in float32.
    """
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def accumulation(cfg: CfgNode) -> int:
    """``SOLVER.ACCUMULATE``, checked.

    Raises:
        ConfigError: fewer than one part, or more parts than a process has images.
    """
    parts, images = cfg.SOLVER.ACCUMULATE, cfg.SOLVER.IMS_PER_BATCH // comm.get_world_size()
    if not 1 <= parts <= max(images, 1):
        raise ConfigError(
            f"SOLVER.ACCUMULATE {parts} should be from 1 to {images}, the images of a process"
        )
    return int(parts)


def autocast(device: str, dtype: torch.dtype | None) -> contextlib.AbstractContextManager[None]:
    """Autocast for ``dtype`` on the device's type, or nothing when dtype is None."""
    if dtype is None:
        return contextlib.nullcontext()
    return torch.autocast(torch.device(device).type, dtype=dtype)


@dataclass(frozen=True)
class StepOptions:
    """How iterations are made.

    Attributes:
        dtype: autocast type or None; float16 scales the loss.
        accumulate: parts that a process's batch is taken in, one after the other.
        clip: changes gradients in place, given them and their total norm.
        max_skips: batches with a loss or gradient that is not finite to leave out before the
            training stops.
        read_period: iterations between two lines of the log.
        delay: iterations after which losses are read; None: 1 on a GPU, else 0.
    """

    dtype: torch.dtype | None = None
    accumulate: int = 1
    clip: Clip | None = None
    max_skips: int = 0
    read_period: int = 20
    delay: int | None = None
