"""Checkpoints that are whole or not there, verified when read, and weights from other sources."""

from __future__ import annotations

import logging
import os
import re
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils import comm
from iopath.common.file_io import get_cache_dir

from ..io.files import WriteError, damage, digest_file, remove_temporaries, write_atomically
from ..io.weights import Weights, WeightsError, read_weights
from ..io.weights.addresses import PackageWeights
from ..io.weights.expectations import contradictions
from ..io.weights.fit import Fit, check_start, check_whole, fit, load_into
from ..io.weights.layout import plain_name, take_ema
from .failures import require_finite

_NUMBERED = re.compile(r"model_(\d+)\.pth")


class Checkpointer(DetectionCheckpointer):
    """Detectron2's checkpointer, with durable saves, verified loads and explained failures.

    Args:
        model: what is saved and loaded.
        save_dir: folder of the run.
        save_to_disk: None: only in the main process.
        keep: numbered checkpoints to keep; 0 keeps all.
        background: copy the states and write them in a thread.
        image_format: ``INPUT.FORMAT``, which is compared with what weights expect.
        checkpointables: further objects with ``state_dict``.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        save_dir: str = "",
        *,
        save_to_disk: bool | None = None,
        keep: int = 0,
        background: bool = False,
        image_format: str = "",
        **checkpointables: Any,
    ) -> None:
        super().__init__(model, save_dir, save_to_disk=save_to_disk, **checkpointables)
        self.keep, self.background, self.image_format = keep, background, image_format
        self._pool: ThreadPoolExecutor | None = None
        self._pending: Future[None] | None = None

    # ----------------------------------------------------------------------------------- saving

    def save(
        self, name: str, *, tag_last: bool = True, in_background: bool = True, **extra: Any
    ) -> None:
        """Save model and states as ``name.pth``, with its SHA-256 in ``name.pth.sha256``.

        Args:
            name: file name without suffix.
            tag_last: whether ``--resume`` is to continue from this file.
            in_background: False waits until the file is on the disk in any case.
            extra: further values to store, e.g. ``iteration``.

        Raises:
            WriteError: the disk is full, ...; earlier checkpoints are untouched. One of a save in
                the background is raised by :meth:`wait`, and only logged where another save
                follows, which has newer weights.
            NonFiniteError: the weights hold NaN or infinity.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        # The trainer's state first: it knows whether the last iteration was sound.
        states = {key: item.state_dict() for key, item in self.checkpointables.items()}
        data: dict[str, Any] = {"model": _plain(self.model.state_dict()), **states, **extra}
        require_finite(data["model"], f"{name}.pth")
        if not (self.background and in_background):
            failed = self._settle()
            self._write(name, data, tag_last)
            if failed is not None:
                raise failed
            return
        copy = _copied(data)
        failed = self._settle()
        self._pool = self._pool or ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending = self._pool.submit(self._write, name, copy, tag_last)
        if failed is not None:
            raise failed

    def wait(self) -> None:
        """Wait for a save in the background, and raise what went wrong in it."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _settle(self) -> BaseException | None:
        """Wait for a save in the background, whose failure must not stop the next one.

        Returns:
            What is to be raised after the next save; a disk's failure is only logged.
        """
        pending, self._pending = self._pending, None
        error = pending.exception() if pending is not None else None
        if not isinstance(error, WriteError):
            return error
        self.logger.error("A save in the background has failed: %s", error)
        return None

    def _write(self, name: str, data: dict[str, Any], tag_last: bool) -> None:
        path = Path(self.save_dir) / f"{name}.pth"
        self.logger.info("Saving checkpoint to %s", path)
        write_atomically(path, lambda file: torch.save(data, file), with_digest=True)
        if tag_last:
            self.tag_last_checkpoint(path.name)
        if self.keep:
            for old in numbered(Path(self.save_dir))[self.keep :]:
                old.unlink(missing_ok=True)
                digest_file(old).unlink(missing_ok=True)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Name the file that ``--resume`` continues from."""
        write_atomically(
            Path(self.save_dir) / "last_checkpoint",
            lambda file: file.write(last_filename_basename.encode()),
        )

    # ---------------------------------------------------------------------------------- finding

    def has_checkpoint(self) -> bool:
        """Whether there is something to resume from, intact or not."""
        return bool(candidates(Path(self.save_dir)))

    def newest_intact(self) -> Path | None:
        """The checkpoint to resume from, or None where there is none at all.

        Damaged ones are passed over with a warning that names them.

        Raises:
            WeightsError: there are checkpoints, and all are damaged.
        """
        found: tuple[str | None, list[str]] = (None, [])
        if comm.is_main_process():
            found = self._search()
        found = comm.all_gather(found)[0]
        if found[0] is None and found[1]:
            raise WeightsError(
                f"{self.save_dir}: no checkpoint is intact: {'; '.join(found[1])}. Start anew in "
                "another OUTPUT_DIR, or restore one of them."
            )
        return Path(found[0]) if found[0] else None

    def _search(self) -> tuple[str | None, list[str]]:
        damaged: list[str] = []
        for file in candidates(Path(self.save_dir)):
            problem = damage(file, ours=True)
            if problem is None:
                if damaged:
                    self.logger.warning("Falling back to %s", file)
                return str(file), damaged
            damaged.append(f"{file}: {problem}")
            self.logger.warning("Damaged checkpoint %s: %s", file, problem)
        return None, damaged

    # ---------------------------------------------------------------------------------- loading

    def resume_or_load(
        self, path: str, *, resume: bool = True, complete: bool = False
    ) -> dict[str, Any]:
        """Continue from the newest intact checkpoint of the run, or load weights only.

        Raises:
            WeightsError: see :meth:`newest_intact` and :meth:`load`.
        """
        if resume and self.save_dir:
            if self.save_to_disk:
                remove_temporaries(Path(self.save_dir))
            newest = self.newest_intact()
            if newest is not None:
                return self.load(str(newest), complete=complete)
        return self.load(path, checkpointables=[], complete=complete)

    def load(
        self, path: str, checkpointables: list[str] | None = None, *, complete: bool = False
    ) -> dict[str, Any]:
        """Load weights (and, on resume, states) from a file or a model-zoo address.

        A file is a start for a training, and what of it fits is taken and counted; or it is the
        model, and every tensor must come from it; or a training goes on from it: then no tensor
        may be missing, and those of another size (another number of classes) start anew.

        Without a trainer to continue, weights are their EMA where the file holds it.

        Args:
            path: "" loads nothing.
            checkpointables: names of the states to restore; None: all.
            complete: the file is the model.

        Returns:
            What else the file holds.

        Raises:
            WeightsError: the file is missing, damaged, asks for more than arrays or does not fit,
                or an address cannot be reached; the message names the path, and the cache where a
                copy may be put by hand.
        """
        if not path:
            if complete:
                raise WeightsError(
                    "no weights: set MODEL.WEIGHTS to the trained file, or give --resume where "
                    "OUTPUT_DIR holds the run's checkpoints"
                )
            self.logger.info("No weights are named: the model starts as it was initialised")
            return {}
        self._require(path)
        wanted = list(self.checkpointables) if checkpointables is None else checkpointables
        weights = self._read(self.path_manager.get_local_path(path))
        continues = bool(wanted)
        if not continues:
            take_ema(weights)
        found = fit(weights, self.model, start=not (complete or continues))
        if complete or continues:
            check_whole(found, other_sizes=not complete)
        else:
            check_start(found)
        self._compare_expectations(path, found)
        load_into(found, self.model)
        partial = found.misfits or found.missing
        self.logger.log(logging.WARNING if partial else logging.INFO, "%s", found)
        for key in wanted:
            if key in weights.rest:
                self.checkpointables[key].load_state_dict(weights.rest.pop(key))
            else:
                self.logger.warning("%s holds no state of the %s, which starts anew", path, key)
        return weights.rest

    def _compare_expectations(self, path: str, found: Fit) -> None:
        if not self.image_format:
            return
        for text in contradictions(found, self.model, self.image_format):
            message = f"{path} ({found.kind}) expects {text}"
            if path.startswith(PackageWeights.prefix):
                raise WeightsError(message)
            self.logger.warning("%s", message)

    def _require(self, path: str) -> None:
        if "://" not in path:
            if not os.path.isfile(path):
                raise WeightsError(
                    f"MODEL.WEIGHTS: no file {path}. Name an existing .pth, .pkl or .safetensors "
                    'file, or "" to start from random weights. On several machines OUTPUT_DIR '
                    "and weights lie on a disk that all of them see."
                )
            return
        try:
            self.path_manager.get_local_path(path)
        except (OSError, ValueError) as error:
            raise WeightsError(
                f"MODEL.WEIGHTS: {path} could not be fetched ({error}). Without a network, fetch "
                f"it elsewhere and set MODEL.WEIGHTS to the file, or put it into the cache below "
                f'{get_cache_dir()}; "" starts from random weights.'
            ) from None

    def _read(self, file: str) -> Weights:
        problem = damage(Path(file))
        if problem:
            raise WeightsError(f"{file} is damaged: {problem}")
        return read_weights(file)


def _plain(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """A state dict by the names that the model has without ``torch.compile`` and the like."""
    result = OrderedDict((plain_name(name), value) for name, value in state.items())
    versions = getattr(state, "_metadata", {})
    result.__dict__["_metadata"] = {plain_name(name): value for name, value in versions.items()}
    return result


def _copied(value: Any) -> Any:
    """The same containers around tensors of their own, on the CPU."""
    if torch.is_tensor(value):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        copy = OrderedDict((key, _copied(item)) for key, item in value.items())
        copy.__dict__.update(getattr(value, "__dict__", {}))  # a state dict's versions of modules
        return copy
    if isinstance(value, (list, tuple)):
        return type(value)(_copied(item) for item in value)
    return value


def numbered(folder: Path) -> list[Path]:
    """Periodic checkpoints, the newest first."""
    found = ((_NUMBERED.fullmatch(file.name), file) for file in folder.glob("model_*.pth"))
    by_number = {int(match[1]): file for match, file in found if match}
    return [by_number[number] for number in sorted(by_number, reverse=True)]


def candidates(folder: Path) -> list[Path]:
    """Files to resume from: the one tagged last, then the newest first, ``model_best`` last."""
    files = sorted(
        folder.glob("model_*.pth"),
        key=lambda file: (file.name != "model_best.pth", file.stat().st_mtime_ns),
        reverse=True,
    )
    tag = folder / "last_checkpoint"
    if tag.is_file():
        # A damaged tag may hold anything: only a name, and only below this folder.
        name = Path(tag.read_text("latin1").strip().replace("\0", "")).name
        files = [folder / name] * bool(name) + [file for file in files if file.name != name]
    return files
