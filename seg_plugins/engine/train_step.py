"""One training iteration: forward, backward, check, update, in the precision asked for.

Nothing here waits for a GPU. Whether losses and gradients are finite is decided on the device, and
the optimizer, on the device too, leaves weights and its own state alone where they are not. The
host reads verdict and losses one iteration later (at once on a CPU), before a line of the log,
and before a checkpoint.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn

from ..config import ConfigError
from ..modeling.losses import recorded_means
from .accumulation import Parts
from .failures import NonFiniteError, StepReport, Verdicts, explained
from .solver import StepOptions
from .train_loader import BatchLoader
from .training_state import load_optimizer, optimizer_state


def autocast(device: str, dtype: torch.dtype | None) -> contextlib.AbstractContextManager[None]:
    """Autocast for ``dtype`` on the device's type, or nothing when dtype is None."""
    if dtype is None:
        return contextlib.nullcontext()
    return torch.autocast(torch.device(device).type, dtype=dtype)


class TrainStep:
    """Runs iterations for :class:`~seg_plugins.engine.trainer.Trainer`.

    Args:
        model: returns a dict of scalar losses in training mode.
        loader: gives batches (lists of samples).
        optimizer: as torch's; fused ones need no synchronisation.
        device: ``MODEL.DEVICE``.
        output_dir: where ``nan_dump/`` is written.
        options: see :class:`StepOptions`.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        loader: BatchLoader,
        optimizer: torch.optim.Optimizer,
        device: str,
        output_dir: str = ".",
        options: StepOptions | None = None,
    ) -> None:
        model.train()
        self.iter = 0
        self.model, self.data_loader, self.optimizer = model, loader, optimizer
        self.device, self.options = device, options or StepOptions()
        self.scaler = torch.amp.GradScaler(
            torch.device(device).type, enabled=self.options.dtype is torch.float16
        )
        # In this process; `verdicts` has what all of them know.
        self.stop_wanted = self.finish_wanted = False
        self.verdicts = Verdicts(Path(output_dir), self.options.max_skips)
        named = {p: n for n, p in model.named_parameters() if p.requires_grad}
        self._names, self._parameters = list(named.values()), list(named)
        self._buffers = [b for b in model.buffers() if b.is_floating_point()]
        self._batches: Any = None
        self._unread: list[StepReport] = []

    def start(self, iteration: int, drawn: int | None = None) -> None:
        """Begin to draw batches: that of ``iteration``, before which ``drawn`` samples came."""
        self.data_loader.start_at(iteration, drawn)
        self._batches = iter(self.data_loader)

    # ------------------------------------------------------------------------------- one step

    def run_step(self) -> None:
        """One iteration.

        Raises:
            NonFiniteError: in all processes, with weights and optimizer as before the iteration.
            DataWorkerError: a process that loads data has died.
            OutOfMemoryError: with the settings to lower.
        """
        batch: list[dict[str, Any]] = []
        try:
            begin = time.perf_counter()
            batch = next(self._batches)
            self._iterate(batch, time.perf_counter() - begin)
        except NonFiniteError:
            raise
        except FloatingPointError as error:
            # Detectron2 refuses boxes that are not finite, in the process that has them.
            self.verdicts.refuse_boxes(self.iter, batch, str(error))
        except (RuntimeError, MemoryError, ConnectionError, EOFError) as error:
            clear = explained(error, self.data_loader, batch)
            if clear is None:
                raise
            raise clear from error

    def _iterate(self, batch: list[dict[str, Any]], data_time: float) -> None:
        saved = [b.clone() for b in self._buffers] if self.options.max_skips else None
        losses = self._compute_gradients(batch)
        if self.scaler.is_enabled():
            self.scaler.unscale_(self.optimizer)
        used = [(n, p) for n, p in zip(self._names, self._parameters, strict=True)
                if p.grad is not None]  # fmt: skip
        self._check_used({n for n, _ in used})
        gradients = [p.grad for _, p in used]
        norms = torch.stack([n.float() for n in torch._foreach_norm(gradients)])
        norm = torch.linalg.vector_norm(norms)
        values = torch.stack([v.float().reshape(()) for v in losses.values()])
        summary, found = self._agree(values, norm)
        if self.options.clip is not None:
            self.options.clip(gradients, norm)
        self._update(found)
        if saved is not None:  # a forward pass on NaN leaves NaN in running statistics
            for buffer, old in zip(self._buffers, saved, strict=True):
                buffer.copy_(torch.where(found > 0, old, buffer))
        report = StepReport(
            iteration=self.iter, batch=batch, loss_names=list(losses), data_time=data_time,
            parameter_names=[n for n, _ in used], norms=norms, own_losses=values, summary=summary,
        )  # fmt: skip
        self._unread.append(report)
        self._read_due()

    def _compute_gradients(self, batch: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Gradients of the batch, and its losses, detached; see :mod:`.accumulation`."""
        self.optimizer.zero_grad(set_to_none=True)
        count = min(self.options.accumulate, len(batch))
        limits = [i * len(batch) // count for i in range(count + 1)]
        parts = Parts(self._parameters)
        for i in range(count):
            part = list(batch[limits[i] : limits[i + 1]])
            with self._synchronised(i == count - 1), recorded_means() as means:
                with autocast(self.device, self.options.dtype):
                    losses: dict[str, Tensor] = self.model(part)
                losses = {k: v.float().reshape(()) for k, v in losses.items()}
                if count == 1:
                    self.scaler.scale(torch.stack(list(losses.values())).sum()).backward()
                    return {k: v.detach() for k, v in losses.items()}
                parts.add(losses, means, len(part), self.scaler.scale, last=i == count - 1)
        return parts.losses

    def _check_used(self, used: set[str]) -> None:
        """In several processes, a parameter without a gradient would leave others unaveraged."""
        if not getattr(self.model, "find_unused_parameters", True):
            unused = [name.removeprefix("module.") for name in self._names if name not in used]
            if unused:
                raise ConfigError(
                    f"{len(unused)} parameters have no part in the losses, which several processes "
                    f"cannot average: {', '.join(unused[:3])}, ... Leave these layers out of the "
                    "model, or freeze them (requires_grad False), or train in one process."
                )

    def _synchronised(self, yes: bool) -> contextlib.AbstractContextManager[Any]:
        """Whether gradients are averaged over the processes in the backward pass."""
        no_sync = getattr(self.model, "no_sync", None)
        return contextlib.nullcontext() if yes or no_sync is None else no_sync()

    def _agree(self, losses: Tensor, norm: Tensor) -> tuple[Tensor, Tensor]:
        """What all processes know of this iteration, on the device.

        Returns:
            (5 + L,): losses not finite, gradients not finite, a stop is wanted, an early end is
            wanted (each > 0 for yes), gradient norm, mean losses; and 1.0 if the weights must
            stay as they are, else 0.0.
        """
        flags = torch.stack([
            (~torch.isfinite(losses)).any().to(losses),
            (~torch.isfinite(norm)).to(losses),
            torch.full_like(norm, float(self.stop_wanted)),
            torch.full_like(norm, float(self.finish_wanted)),
            norm,
        ])  # fmt: skip
        summary = torch.cat([flags, losses])
        if comm.get_world_size() > 1:
            dist.all_reduce(summary)
            summary[4:] /= comm.get_world_size()
        return summary, ((summary[0] > 0) | (summary[1] > 0)).float()

    def _update(self, found: Tensor) -> None:
        if all(group.get("fused") for group in self.optimizer.param_groups):
            # The contract of torch's fused optimizers with its GradScaler.
            self.optimizer.found_inf, self.optimizer.grad_scale = found, None
            self.optimizer.step()
            del self.optimizer.found_inf, self.optimizer.grad_scale
        elif not found:
            self.optimizer.step()
        if self.scaler.is_enabled():
            self.scaler.update()

    # ------------------------------------------------------------------------------- verdicts

    def _read_due(self) -> None:
        delay = self.options.delay
        if delay is None:
            delay = int(torch.device(self.device).type != "cpu")
        if (self.iter + 1) % self.options.read_period == 0:
            delay = 0
        while len(self._unread) > delay:
            self._read(self._unread.pop(0))

    def settle(self) -> None:
        """Read what is known of the iterations so far.

        Raises:
            NonFiniteError: one of them was not finite, and no more may be left out.
        """
        while self._unread:
            self._read(self._unread.pop(0))

    def _read(self, report: StepReport) -> None:
        storage = get_event_storage()
        now = storage.iter
        storage.iter = report.iteration
        try:
            scale = self.scaler.get_scale() if self.scaler.is_enabled() else None
            self.verdicts.read(report, scale, storage)
        finally:
            storage.iter = now

    # ---------------------------------------------------------------------------------- state

    def state_dict(self) -> dict[str, Any]:
        """Iteration, optimizer, loss scale and the number of batches left out."""
        self.settle()
        return {
            "iteration": self.iter,
            "optimizer": optimizer_state(self.optimizer, self._named()),
            "grad_scaler": self.scaler.state_dict(),
            "skipped": self.verdicts.skipped,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore :meth:`state_dict`'s content; settings are the configuration's."""
        self.iter = state_dict["iteration"]
        if "optimizer" in state_dict:
            load_optimizer(self.optimizer, state_dict["optimizer"], self._named())
        if state_dict.get("grad_scaler") and self.scaler.is_enabled():
            self.scaler.load_state_dict(state_dict["grad_scaler"])
        self.verdicts.skipped = state_dict.get("skipped", 0)

    def _named(self) -> dict[nn.Parameter, str]:
        names = (name.removeprefix("module.") for name in self._names)
        return dict(zip(self._parameters, names, strict=True))
