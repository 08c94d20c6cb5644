"""The drawn images of runs: each run's own, and those that several runs have beside each other."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...tasks import TASKS
from .plots import data_uri
from .run import Run
from .tables import Table

_TITLES = {task.output: task.title for task in TASKS}
_MIMES = {".png": "image/png", ".jpg": "image/jpeg"}

# Kinds of pictures in the order of an example's row.
KINDS = {"image": "image", "truth": "ground truth", "prediction": "prediction", "error": "errors"}


def examples(run: Run) -> list[tuple[str, list[dict[str, Any]]]]:
    """(heading, examples) with pictures as data URIs, worst images first."""
    names = _short_names(entry["file_name"] for entry in run.examples)
    groups: dict[str, list[dict[str, Any]]] = {}
    for entry in run.examples:
        task = _TITLES.get(entry["task"], entry["task"])
        groups.setdefault(f"{task}: {entry['rank']} images", []).append(
            {
                **entry,
                "name": names[entry["file_name"]],
                "pictures": {k: _uri(path) for k, path in entry["pictures"].items() if k in KINDS},
                "legend": _legend(entry.get("legend") or []),
                "segment_table": Table(
                    "", ["segment", "class", "pixels", "score"], entry.get("segments") or []
                ),
            }
        )
    return list(groups.items())


def side_by_side(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Images that more than one run has drawn: image and truth once, then each prediction.

    Returns:
        ``name``, ``title`` of the task, ``pictures`` as (caption, data URI).
    """
    drawn: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for run in runs:
        for entry in run.examples:
            key = (entry["task"], str(entry["file_name"]))
            drawn.setdefault(key, {})[run.name] = entry
    names = _short_names(name for _, name in drawn)
    found = []
    for (task, file_name), entries in drawn.items():
        if len(entries) < 2:
            continue
        first = next(iter(entries.values()))["pictures"]
        pictures = [(KINDS[k], _uri(first[k])) for k in ("image", "truth") if k in first]
        for name, entry in entries.items():
            if "prediction" in entry["pictures"]:
                caption = f"{name}: {entry['score']:.1f}"
                pictures.append((caption, _uri(entry["pictures"]["prediction"])))
        title = _TITLES.get(task, task)
        found.append({"name": names[file_name], "title": title, "pictures": pictures})
    return found


def _short_names(file_names: Any) -> dict[str, str]:
    """File name -> what is its own of it, below the folder that all have in common."""
    known = list(dict.fromkeys(file_names))
    folders = {os.path.dirname(name) for name in known}
    try:
        common = os.path.commonpath(folders)
    except ValueError:  # none, or on several drives
        return {name: name for name in known}
    return {name: Path(os.path.relpath(name, common or ".")).as_posix() for name in known}


def _uri(path: Path) -> str:
    return data_uri(path.read_bytes(), _MIMES.get(path.suffix, "image/png"))


def _legend(entries: Sequence[Sequence[Any]]) -> list[tuple[str, str]]:
    """(class, colour in CSS); numbers alone come into the style."""
    return [(name, "rgb({:d} {:d} {:d})".format(*map(int, color))) for name, color in entries]
