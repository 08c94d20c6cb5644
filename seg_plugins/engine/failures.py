"""What an iteration came to, and the errors that say what went wrong in it and what to do."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from detectron2.engine import TrainerBase
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import Tensor

from ..io.errors import SegPluginsError
from ..io.files import write_atomically
from ..io.weights.layout import bad_names, nonfinite_names

logger = logging.getLogger(__name__)


class NonFiniteError(SegPluginsError, FloatingPointError):
    """A loss, gradient, box or weight became NaN or infinite; names iteration and image files."""


class OutOfMemoryError(SegPluginsError, RuntimeError):
    """Memory ran out; the message names sizes and the settings to lower."""


class DataWorkerError(SegPluginsError, RuntimeError):
    """A process that loads data has died; the message names the sample it was at."""


# What a dead data worker looks like in this process: PyTorch's signal handler raises the first
# wherever it happens to be, and a sample that was on its way breaks off with the others.
INTERRUPTED = (RuntimeError, MemoryError, OSError, EOFError)


def explained(error: Exception, loader: Any, batch: Sequence[dict[str, Any]]) -> Exception | None:
    """A clearer error for one that came up in an iteration, or None where it says it all.

    Args:
        error: as it was raised.
        loader: tells of ``dead_workers()``.
        batch: what was computed on, if it was there yet.
    """
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


@contextlib.contextmanager
def logged_without_traceback(loader: Any) -> Iterator[None]:
    """Within a block, Detectron2's loop logs no traceback of an error whose message says it all.

    Args:
        loader: see :func:`explained`.
    """

    def unexpected(record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, INTERRUPTED):
            error = explained(error, loader, ()) or error
        return not isinstance(error, SegPluginsError)

    log = logging.getLogger(TrainerBase.__module__)
    log.addFilter(unexpected)
    try:
        yield
    finally:
        log.removeFilter(unexpected)


# ---------------------------------------------------------------------- not finite


def write_dump(folder: Path, iteration: int, rank: int, content: Mapping[str, Any]) -> Path:
    """Write ``nan_dump/iteration_N_process_R.json`` below a folder.

    A sample is a pure function of seed and stream position, so positions suffice to make the
    batch again: ``trainer.train_loader.stream[position]``.
    """
    path = folder / "nan_dump" / f"iteration_{iteration:07d}_process_{rank}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"iteration": iteration, "process": rank, **content}, indent=1)
    write_atomically(path, lambda file: file.write(text.encode()))
    return path


def require_finite(state: Mapping[str, torch.Tensor], what: str) -> None:
    """Refuse weights that hold NaN or infinity.

    Raises:
        NonFiniteError: with the names of the tensors.
    """
    wrong = nonfinite_names(state)
    if wrong:
        raise NonFiniteError(
            f"{what} was not written: NaN or infinity in {', '.join(wrong[:5])}"
            + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")
            + ". --resume continues from the checkpoint before; lower SOLVER.BASE_LR."
        )


def sources(batch: Sequence[dict[str, Any]]) -> list[str]:
    """The image files of a batch."""
    return [str(sample.get("file_name", "?")) for sample in batch]


@dataclass
class StepReport:
    """One iteration, still on the device.

    Attributes:
        iteration, batch, loss_names, data_time: of the host.
        parameter_names: of those that have a gradient.
        norms: (P,) their gradients' norms.
        own_losses: (L,) of this process.
        summary: see ``TrainStep._agree``; copied to the host meanwhile.
    """

    iteration: int
    batch: Sequence[dict[str, Any]]
    loss_names: list[str]
    data_time: float
    parameter_names: list[str]
    norms: Tensor
    own_losses: Tensor
    summary: Tensor
    _event: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        # The images are not needed any more; names and positions are small.
        self.batch = [
            {key: sample[key] for key in ("file_name", "stream_position") if key in sample}
            for sample in self.batch
        ]
        if self.summary.is_cuda:
            host = torch.empty(self.summary.shape, dtype=self.summary.dtype, pin_memory=True)
            self.summary = host.copy_(self.summary, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    def values(self) -> list[float]:
        """The summary's numbers; waits for this iteration, not for later ones."""
        if self._event is not None:
            self._event.synchronize()
        return self.summary.tolist()


class Verdicts:
    """Reads reports: metrics into the event storage, an error where the batch was not finite.

    Args:
        folder: where ``nan_dump/`` is written.
        max_skips: batches left out before the training stops.

    Attributes:
        skipped: batches left out so far.
        stop, finish: one process wants to end the training, and all know.
    """

    def __init__(self, folder: Path, max_skips: int) -> None:
        self.folder, self.max_skips = folder, max_skips
        self.skipped = 0
        self.stop = self.finish = False

    def read(self, report: StepReport, scale: float | None, storage: EventStorage) -> None:
        """Take in one report.

        Args:
            report: of an iteration.
            scale: the loss scale after it, with float16.
            storage: its iteration is the report's.

        Raises:
            NonFiniteError: in all processes alike.
        """
        bad_loss, bad_gradient, stop, finish, norm, *losses = report.values()
        self.stop = self.stop or stop > 0
        self.finish = self.finish or finish > 0
        # With float16, gradients overflow now and then until the scale is right.
        searching = scale is not None and scale >= 1
        if bad_loss or (bad_gradient and not searching):
            self._refuse(report, bad_loss > 0, scale)
            return
        storage.put_scalar("data_time", report.data_time)
        storage.put_scalar("total_loss", sum(losses))
        if bad_gradient == 0:
            storage.put_scalar("gradient_norm", norm)
        if len(losses) > 1:
            storage.put_scalars(**dict(zip(report.loss_names, losses, strict=True)))

    def _refuse(self, report: StepReport, bad_loss: bool, scale: float | None) -> None:
        own = dict(zip(report.loss_names, report.own_losses.tolist(), strict=True))
        gradients = bad_names(report.parameter_names, report.norms)
        files = sources(report.batch)
        dump = write_dump(
            self.folder,
            report.iteration,
            comm.get_rank(),
            {
                "losses": {name: str(value) for name, value in own.items()},
                "gradients_not_finite": gradients,
                "loss_scale": scale,
                "files": files,
                "stream_positions": [s.get("stream_position") for s in report.batch],
            },
        )
        text = ", ".join(f"{name} = {value:g}" for name, value in own.items())
        if not bad_loss:
            text += f", gradients of {', '.join(gradients[:3])}"
        # Losses of the processes differ; gradients are their mean.
        guilty = not bad_loss or any(value - value != 0 for value in own.values())
        all_text = comm.all_gather((guilty, text, files))
        message = "; ".join(f"process {i}: {t} on {f}" for i, (g, t, f) in enumerate(all_text) if g)
        what = "Loss" if bad_loss else "Gradient"
        self._stop_or_skip(f"{what} is not finite at iteration {report.iteration}: {message}", dump)

    def refuse_boxes(self, iteration: int, batch: Sequence[dict[str, Any]], reason: str) -> None:
        """Stop, or leave the batch out, because of boxes that are not finite.

        Raises:
            NonFiniteError: always with several processes, since the others wait for this one.
        """
        files = sources(batch)
        positions = [sample.get("stream_position") for sample in batch]
        content = {"reason": reason, "files": files, "stream_positions": positions}
        dump = write_dump(self.folder, iteration, comm.get_rank(), content)
        message = f"Boxes are not finite at iteration {iteration}: {reason} on {files}"
        self._stop_or_skip(message, dump, can_skip=comm.get_world_size() == 1)

    def _stop_or_skip(self, message: str, dump: Path, *, can_skip: bool = True) -> None:
        self.skipped += 1
        if can_skip and self.skipped <= self.max_skips:
            logger.warning(
                "%s. Left out (%d of at most %d); see %s",
                message, self.skipped, self.max_skips, dump,
            )  # fmt: skip
            return
        advice = (
            "Lower SOLVER.BASE_LR, lengthen SOLVER.WARMUP_ITERS, or check these files; "
            f"{dump} tells more."
        )
        logger.error("%s. %s", message, advice)
        raise NonFiniteError(f"{message}. The weights were not changed. {advice}")
