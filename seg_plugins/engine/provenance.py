"""Where a result comes from: the code's version, and the command that repeats the run."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

import seg_plugins


def code_version() -> dict[str, str]:
    """``version`` of the package and, in a checkout, its ``commit`` (``-dirty``: with changes)."""
    found = {"version": seg_plugins.__version__}
    root = Path(seg_plugins.__file__).parents[1]
    if not (root / ".git").exists():
        return found
    command = [
        "git",
        "-C",
        str(root),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=12",
        "--exclude=*",
    ]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # no git, or a folder of somebody else
        return found
    return {**found, "commit": commit}


def typed(arguments: Sequence[str]) -> list[str]:
    """What was typed for these ``sys.argv``: ``python -m`` puts a file there that is no script."""
    if Path(arguments[0]) == Path(seg_plugins.__file__).with_name("__main__.py"):
        return ["python", "-m", "seg_plugins", *arguments[1:]]
    return list(arguments)


def repeating(arguments: Sequence[str], seed: int) -> str:
    """The command line that does the same again.

    Args:
        arguments: of the run, the program first.
        seed: that the run used, drawn or given.
    """
    kept = [argument for argument in typed(arguments) if argument != "--resume"]
    # -1 would draw another; of two the last counts.
    if kept[-2:] != ["SEED", str(seed)]:
        kept += ["SEED", str(seed)]
    return shlex.join(kept)
