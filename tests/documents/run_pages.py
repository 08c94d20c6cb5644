"""Run the blocks of pages in the working directory: `python run_pages.py PAGE ...`.

One process for all of them, because importing PyTorch and Detectron2 takes most of a command's
time. Bash blocks hold commands of this package and scripts of tools/; the Python blocks of a page
share their names. YAML blocks are written to the file that the text before them names. The
environment variable QUICK holds configuration values that make a training short.
"""

from __future__ import annotations

import os
import re
import runpy
import shlex
import sys
from pathlib import Path
from typing import Any

import seg_plugins  # noqa: F401 - first: it makes Detectron2 run
from seg_plugins.cli.main import main

from blocks import ROOT, blocks_of, command_lines, command_of


def run_command(words: list[str]) -> None:
    """Run a line of a Bash block.

    Raises:
        SystemExit: it failed.
    """
    found = command_of(words)
    try:
        if found is None:
            run_script(words)
        elif found[0] == "train" and "--eval-only" not in words:
            main("train", [*found[1], *shlex.split(os.environ.get("QUICK", ""))])
        else:
            main(*found)
    except SystemExit as end:
        if end.code not in (0, None):
            raise


def run_script(words: list[str]) -> None:
    """Run a script of tools/, which is no command."""
    start = next(i for i, word in enumerate(words) if re.fullmatch(r"tools/\w+\.py", word))
    before, sys.argv = sys.argv, words[start:]
    try:
        runpy.run_path(str(ROOT / words[start]), run_name="__main__")
    finally:
        sys.argv = before


def run_page(page: str) -> None:
    """Run the blocks of a page that are marked neither as not run nor as run by another test."""
    names: dict[str, Any] = {}
    for block in blocks_of(page):
        if block.marker:
            continue
        if block.language == "yaml" and block.file and not Path(block.file).exists():
            Path(block.file).write_text(block.code, encoding="utf-8")
        elif block.language == "python":
            print(f"== {block.place}", flush=True)
            exec(compile(block.code, block.place, "exec"), names)
        elif block.language == "bash":
            for words in command_lines(block.code):
                print(f"== {block.place}: {shlex.join(words)}", flush=True)
                run_command(words)


if __name__ == "__main__":
    for given in sys.argv[1:]:
        run_page(given)
