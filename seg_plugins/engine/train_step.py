"""One training iteration: forward, backward, update, in the precision the configuration asks."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from detectron2.config import CfgNode
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from torch import nn

from ..config import ConfigError
from .data_stream import TrainLoader

AMP_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


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
    return AMP_DTYPES[amp.DTYPE]


def autocast(device: str, dtype: torch.dtype | None) -> contextlib.AbstractContextManager[None]:
    """Autocast for ``dtype`` on the device's type, or nothing when dtype is None."""
    if dtype is None:
        return contextlib.nullcontext()
    return torch.autocast(torch.device(device).type, dtype=dtype)


class NonFiniteLossError(FloatingPointError):
    """A loss became NaN or infinite; the message names iteration, losses and image files."""


class TrainStep(SimpleTrainer):
    """Runs iterations for :class:`~seg_plugins.engine.trainer.Trainer`.

    Args:
        model: returns a dict of scalar losses in training mode.
        loader: gives batches (lists of samples).
        optimizer: as torch's.
        device: ``MODEL.DEVICE``.
        dtype: autocast type or None; float16 scales the loss.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        loader: TrainLoader,
        optimizer: torch.optim.Optimizer,
        device: str,
        dtype: torch.dtype | None = None,
    ) -> None:
        # SimpleTrainer's __init__ would start the data loader before it is known where to resume.
        super(SimpleTrainer, self).__init__()
        model.train()
        self.model, self.data_loader, self.optimizer = model, loader, optimizer
        self.device, self.dtype = device, dtype
        self.scaler = torch.amp.GradScaler(
            torch.device(device).type, enabled=dtype is torch.float16
        )
        self._batches: Any = None

    def start(self, iteration: int) -> None:
        """Begin to draw batches; the first is the one of ``iteration``."""
        self.data_loader.start_at(iteration)
        self._batches = iter(self.data_loader)

    def run_step(self) -> None:
        """One iteration.

        Raises:
            NonFiniteLossError: in all processes, before the weights are touched.
        """
        begin = time.perf_counter()
        batch = next(self._batches)
        data_time = time.perf_counter() - begin
        with autocast(self.device, self.dtype):
            losses: dict[str, torch.Tensor] = self.model(batch)
        total = sum(losses.values())
        self._check_finite(losses, batch)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(total).backward()
        self._write_metrics({k: v.detach() for k, v in losses.items()}, data_time)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _check_finite(
        self, losses: Mapping[str, torch.Tensor], batch: list[dict[str, Any]]
    ) -> None:
        values = torch.stack([v.detach().float().reshape(()) for v in losses.values()])
        bad = (~torch.isfinite(values)).any().float()
        if comm.get_world_size() > 1:
            dist.all_reduce(bad, op=dist.ReduceOp.MAX)
        if not bad:
            return
        names = [str(sample.get("file_name", "?")) for sample in batch]
        values_text = ", ".join(f"{k} = {v.item():g}" for k, v in losses.items())
        files = comm.all_gather((values_text, names))
        message = "; ".join(f"process {i}: {text} on {n}" for i, (text, n) in enumerate(files))
        logging.getLogger(__name__).error("Loss is not finite: %s", message)
        raise NonFiniteLossError(
            f"Loss is not finite at iteration {self.iter}: {message}. The weights were not "
            "changed. Lower SOLVER.BASE_LR, lengthen SOLVER.WARMUP_ITERS, or check these files."
        )

    def state_dict(self) -> dict[str, Any]:
        """Iteration, optimizer and loss scale."""
        return {**super().state_dict(), "grad_scaler": self.scaler.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`'s content."""
        super().load_state_dict(state_dict)
        if state_dict.get("grad_scaler"):
            self.scaler.load_state_dict(state_dict["grad_scaler"])
