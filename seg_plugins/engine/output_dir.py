"""``OUTPUT_DIR`` at a start: whether a training may have it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO

from ..config import ConfigError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# What a start writes before its first iteration.
_OF_A_START = ("config.yaml", "log.txt*", "events.out.tfevents.*", "metrics.json", "run.json")
_held: list[IO[bytes]] = []


def check_output_dir(folder: Path) -> None:
    """Refuse a folder that holds a run, or anything else.

    One in which a training was started and failed before its first iteration counts as empty: the
    corrected command goes on in it, and in its log.

    Raises:
        ConfigError: the folder is used, with the keys to set.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"OUTPUT_DIR {folder} is a file. Choose a folder: OUTPUT_DIR NAME")
    if folder.is_dir() and any(folder.iterdir()) and not _failed_start(folder):
        raise ConfigError(
            f"OUTPUT_DIR {folder} is not empty. Add --resume to continue the training in it, or "
            f"start a new one beside it: OUTPUT_DIR {_free_name(folder)}"
        )


def hold(folder: Path) -> None:
    """Mark the folder as that of this process, for as long as it lives."""
    log = (folder / "log.txt").open("ab")
    _lock(log)
    _held.append(log)


def _lock(file: IO[bytes]) -> bool:
    """Whether the file is this process's now; False where another has it, or nothing can tell."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held, or a file system without locks
        return False
    return True


def _failed_start(folder: Path) -> bool:
    files = list(folder.iterdir())
    if not {"config.yaml", "log.txt"} <= {file.name for file in files}:
        return False
    if not all(any(file.match(pattern) for pattern in _OF_A_START) for file in files):
        return False
    metrics, record = folder / "metrics.json", folder / "run.json"
    if metrics.exists() and metrics.stat().st_size:
        return False
    try:
        if record.exists() and json.loads(record.read_bytes())["iterations"]:
            return False
        with (folder / "log.txt").open("rb") as log:
            return _lock(log)  # else a training has just begun
    except (OSError, ValueError, KeyError):
        return False


def _free_name(folder: Path) -> Path:
    number = 2
    while folder.with_name(f"{folder.name}_{number}").exists():
        number += 1
    return folder.with_name(f"{folder.name}_{number}")
