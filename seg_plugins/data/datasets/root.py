"""Where datasets lie."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["dataset_root", "user_cache_dir"]


def dataset_root() -> Path:
    """The folder of all datasets: ``DETECTRON2_DATASETS``, by default ``datasets``."""
    return Path(os.environ.get("DETECTRON2_DATASETS") or "datasets").expanduser()


def user_cache_dir() -> Path:
    """This package's folder for files that can be made again, below the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or "~/.cache"
    return Path(base).expanduser() / "seg_plugins"
