"""Checkpoints that are whole or not there, and weights loaded with errors that name the fix."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from iopath.common.file_io import get_cache_dir


class WeightsError(RuntimeError):
    """Weights could not be found or read; the message names the file and the fix."""


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part.

    The bytes go to a temporary file in the same folder, to the disk, and then take the name.
    """
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open a folder; its rename is durable enough
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Checkpointer(DetectionCheckpointer):
    """Detectron2's checkpointer, with atomic saves and explained failures."""

    def save(self, name: str, *, tag_last: bool = True, **extra: Any) -> None:
        """Save model and states as ``name.pth``.

        Args:
            name: file name without suffix.
            tag_last: whether ``--resume`` is to continue from this file.
            extra: further values to store, e.g. ``iteration``.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        data: dict[str, Any] = {"model": self.model.state_dict()}
        data.update({key: item.state_dict() for key, item in self.checkpointables.items()})
        data.update(extra)
        path = Path(self.save_dir) / f"{name}.pth"
        self.logger.info("Saving checkpoint to %s", path)
        write_atomically(path, lambda file: torch.save(data, file))
        if tag_last:
            self.tag_last_checkpoint(path.name)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Name the file that ``--resume`` continues from."""
        write_atomically(
            Path(self.save_dir) / "last_checkpoint",
            lambda file: file.write(last_filename_basename.encode()),
        )

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Load weights (and, on resume, states) from a file or a model-zoo address.

        Raises:
            WeightsError: the file is not there, or an address cannot be reached; the message
                names the path, and the cache where a copy may be put by hand.
        """
        if path:
            self._require(path)
        return super().load(path, *args, **kwargs)

    def _require(self, path: str) -> None:
        if "://" not in path:
            if not os.path.isfile(path):
                raise WeightsError(
                    f"MODEL.WEIGHTS: no file {path}. Name an existing .pth, .pkl or .safetensors "
                    'file, or "" to start from random weights.'
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
