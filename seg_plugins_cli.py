"""Where ``seg-plugins`` and the scripts in tools/ start: outside the package that registers itself.

Importing anything of ``seg_plugins`` runs its ``__init__``, which loads PyTorch and Detectron2.
Here the package is made known without running it; ``seg_plugins.cli.main`` runs it for the commands
that need it. ``python -m seg_plugins`` gets to the same place by what ``__init__`` itself sees.
"""
# PYTHON_ARGCOMPLETE_OK

from __future__ import annotations

import importlib.util
import sys

PACKAGE = "seg_plugins"


def main(command: str | None = None) -> None:
    """Run a command: ``seg_plugins.cli.main.main``."""
    if PACKAGE not in sys.modules:
        spec = importlib.util.find_spec(PACKAGE)
        assert spec is not None  # it is installed with this module
        sys.modules[PACKAGE] = importlib.util.module_from_spec(spec)
    importlib.import_module(f"{PACKAGE}.cli.main").main(command)
