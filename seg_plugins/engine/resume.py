"""What changes between a run and its continuation, told before it happens."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode

logger = logging.getLogger(__name__)

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
    "DATALOADER.NUM_WORKERS": "nothing changes but the speed",
}


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
