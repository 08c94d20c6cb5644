"""``OUTPUT_DIR`` at a start: whether a training may have it, and what has changed on a resume."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import yaml
from detectron2.config import CfgNode

from ...config import ConfigError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

# What a start writes before its first iteration.
_OF_A_START = ("config.yaml", "log.txt*", "events.out.tfevents.*", "metrics.json", "run.json")
# Settings that a continued run may change without a word.
_SILENT = ("OUTPUT_DIR", "MODEL.WEIGHTS", "MODEL.DEVICE")
# What happens to the training when one of these changes.
_EFFECTS = {
    "SOLVER.MAX_ITER": "the schedule is stretched to the new length from here on",
    "SOLVER.LR_SCHEDULER_NAME": "the new schedule holds from the present iteration on",
    "SOLVER.IMS_PER_BATCH": "the sample stream goes on where it was, in batches of the new size",
    "SOLVER.OPTIMIZER": "momenta start anew",
    "SOLVER.ACCUMULATE": "results stay the same but for batch statistics",
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": "layers of another size start from random weights",
    "MODEL.ROI_HEADS.NUM_CLASSES": "layers of another size start from random weights",
    "DATASETS.TRAIN": "the order of the samples is another one",
    "SEED": "the order of the samples is another one",
    "DATALOADER.SAMPLER_TRAIN": "the order of the samples is another one",
    "DATALOADER.REPEAT_THRESHOLD": "the order of the samples is another one",
    "DATALOADER.REPEAT_SQRT": "the order of the samples is another one",
    "DATALOADER.RANDOM_SUBSET_RATIO": "the samples are other ones",
    "DATALOADER.NUM_WORKERS": "nothing changes but the speed",
}
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


# ------------------------------------------------------------------------ resume


def former_config(folder: Path) -> dict[str, Any]:
    """``config.yaml`` of the run in a folder; empty where there is none that can be read."""
    file = folder / "config.yaml"
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        logger.warning("%s is not readable, so changes cannot be told: %s", file, error)
        return {}
    return content if isinstance(content, dict) else {}


def changes(former: Mapping[str, Any], cfg: CfgNode) -> dict[str, tuple[Any, Any]]:
    """Keys whose values differ, with both values; keys that only one side knows are left out."""
    old, new = dict(_flat(former)), dict(_flat(cfg))
    return {
        key: (old[key], value)
        for key, value in new.items()
        if key in old and _plain(old[key]) != _plain(value) and key not in _SILENT
    }


def log_changes(former: Mapping[str, Any], cfg: CfgNode) -> None:
    """One line of the log for each changed setting, with what it does to a continued run."""
    for key, (old, new) in changes(former, cfg).items():
        effect = _EFFECTS.get(key)
        logger.warning("Resuming with %s %s, which was %s%s", key, new, old,
                       f": {effect}" if effect else "")  # fmt: skip


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _plain(value: Any) -> Any:
    """Tuples become lists, as YAML gives them."""
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
