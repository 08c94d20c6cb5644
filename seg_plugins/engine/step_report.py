"""What the host learns of an iteration, after the device has computed it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import Tensor

from .nonfinite import NonFiniteError, bad_names, write_dump

logger = logging.getLogger(__name__)


def sources(batch: Sequence[dict[str, Any]]) -> list[str]:
    """The image files of a batch."""
    return [str(sample.get("file_name", "?")) for sample in batch]


@dataclass
class Report:
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

    def read(self, report: Report, scale: float | None, storage: EventStorage) -> None:
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

    def _refuse(self, report: Report, bad_loss: bool, scale: float | None) -> None:
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
