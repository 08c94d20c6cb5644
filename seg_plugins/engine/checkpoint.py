"""Checkpoints that are whole or not there, verified when read, and weights from other sources."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils import comm
from iopath.common.file_io import get_cache_dir

from .atomic_file import damage, digest_file, remove_temporaries, write_atomically
from .nonfinite import require_finite
from .safe_load import UnsafeFileError, load_pickle, load_torch
from .weights_file import WeightsFileError, read_safetensors

__all__ = ["AVERAGE", "Checkpointer", "WeightsError", "write_atomically"]

_NUMBERED = re.compile(r"model_\d+\.pth")
# Under this name checkpoints keep averaged weights; they are what the model is used with.
AVERAGE = "ema"


class WeightsError(RuntimeError):
    """Weights could not be found or read; the message names the file and the fix."""


class Checkpointer(DetectionCheckpointer):
    """Detectron2's checkpointer, with durable saves, verified loads and explained failures.

    Args:
        model: what is saved and loaded.
        save_dir: folder of the run.
        save_to_disk: None: only in the main process.
        keep: numbered checkpoints to keep; 0 keeps all.
        background: copy the states and write them in a thread.
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
        **checkpointables: Any,
    ) -> None:
        super().__init__(model, save_dir, save_to_disk=save_to_disk, **checkpointables)
        self.keep, self.background = keep, background
        self._pool: ThreadPoolExecutor | None = None
        self._pending: Future[None] | None = None
        self._average_counts = False

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
            WriteError: the disk is full, ...; earlier checkpoints are untouched. A background
                save raises it at the next save or :meth:`wait`.
            NonFiniteError: the weights hold NaN or infinity.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        # The trainer's state first: it knows whether the last iteration was sound.
        states = {key: item.state_dict() for key, item in self.checkpointables.items()}
        data: dict[str, Any] = {"model": self.model.state_dict(), **states, **extra}
        require_finite(data["model"], f"{name}.pth")
        if not (self.background and in_background):
            self.wait()
            self._write(name, data, tag_last)
            return
        copy = _copied(data)
        self.wait()
        self._pool = self._pool or ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending = self._pool.submit(self._write, name, copy, tag_last)

    def wait(self) -> None:
        """Wait for a save in the background, and raise what went wrong in it."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _write(self, name: str, data: dict[str, Any], tag_last: bool) -> None:
        path = Path(self.save_dir) / f"{name}.pth"
        self.logger.info("Saving checkpoint to %s", path)
        write_atomically(path, lambda file: torch.save(data, file), with_digest=True)
        if tag_last:
            self.tag_last_checkpoint(path.name)
        if self.keep:
            for old in self._numbered()[self.keep :]:
                old.unlink(missing_ok=True)
                digest_file(old).unlink(missing_ok=True)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Name the file that ``--resume`` continues from."""
        write_atomically(
            Path(self.save_dir) / "last_checkpoint",
            lambda file: file.write(last_filename_basename.encode()),
        )

    # ---------------------------------------------------------------------------------- finding

    def _numbered(self) -> list[Path]:
        """Periodic checkpoints, the newest first."""
        files = (f for f in Path(self.save_dir).glob("model_*.pth") if _NUMBERED.match(f.name))
        return sorted(files, key=lambda file: file.name, reverse=True)

    def candidates(self) -> list[Path]:
        """Files to resume from: the one tagged last, then the newest first, ``model_best`` last."""
        folder = Path(self.save_dir)
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

    def has_checkpoint(self) -> bool:
        """Whether there is something to resume from, intact or not."""
        return bool(self.candidates())

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
        for file in self.candidates():
            problem = damage(file, ours=True)
            if problem is None:
                if damaged:
                    self.logger.warning("Falling back to %s", file)
                return str(file), damaged
            damaged.append(f"{file}: {problem}")
            self.logger.warning("Damaged checkpoint %s: %s", file, problem)
        return None, damaged

    # ---------------------------------------------------------------------------------- loading

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Continue from the newest intact checkpoint of the run, or load weights only.

        Raises:
            WeightsError: see :meth:`newest_intact` and :meth:`load`.
        """
        if resume and self.save_dir:
            if self.save_to_disk:
                remove_temporaries(Path(self.save_dir))
            newest = self.newest_intact()
            if newest is not None:
                return self.load(str(newest))
        return self.load(path, checkpointables=[])

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Load weights (and, on resume, states) from a file or a model-zoo address.

        Without a trainer to continue, weights are the averaged ones where the file holds them.

        Raises:
            WeightsError: the file is missing, damaged or asks for more than arrays, or an address
                cannot be reached; the message names the path, and the cache where a copy may be
                put by hand.
        """
        if path:
            self._require(path)
        wanted = kwargs.get("checkpointables", args[0] if args else None)
        self._average_counts = "trainer" not in (self.checkpointables if wanted is None else wanted)
        return super().load(path, *args, **kwargs)

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

    def _load_file(self, f: str) -> dict[str, Any]:
        problem = damage(Path(f))
        if problem:
            raise WeightsError(f"{f} is damaged: {problem}")
        try:
            content = _read(f)
        except (UnsafeFileError, WeightsFileError) as error:
            raise WeightsError(f"MODEL.WEIGHTS: {error}") from None
        if self._average_counts and AVERAGE in content:
            self.logger.info("Taking the averaged weights of %s", f)
            content["model"] = {**content["model"], **content[AVERAGE]["average"]}
        return content


def _read(file: str) -> dict[str, Any]:
    """The content as Detectron2 understands it: a dict with ``model``."""
    if file.endswith(".safetensors"):
        return {"model": read_safetensors(file)[0]}
    content = load_pickle(file) if file.endswith(".pkl") else load_torch(file)
    if not isinstance(content, Mapping):
        raise UnsafeFileError(f"{file} holds a {type(content).__name__}, not weights by name")
    content = dict(content)
    if file.endswith(".pkl") and not ("model" in content and "__author__" in content):
        # Caffe2's and Detectron's releases; detection models keep their arrays in "blobs".
        blobs = content.get("blobs", content)
        weights = {k: v for k, v in blobs.items() if not k.endswith("_momentum")}
        return {"model": weights, "__author__": "Caffe2", "matching_heuristics": True}
    if "model_state" in content and "model" not in content:  # pycls
        weights = {
            k: v for k, v in content["model_state"].items() if not k.endswith("num_batches_tracked")
        }
        return {"model": weights, "__author__": "pycls", "matching_heuristics": True}
    return content if "model" in content else {"model": content}


def _copied(value: Any) -> Any:
    """The same containers around tensors of their own, on the CPU."""
    if torch.is_tensor(value):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_copied(item) for item in value)
    return value
