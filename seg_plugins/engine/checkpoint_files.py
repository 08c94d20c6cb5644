"""The checkpoints in a run's folder, and their order."""

from __future__ import annotations

import re
from pathlib import Path

_NUMBERED = re.compile(r"model_(\d+)\.pth")


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
