"""From the words of a command line to the command's own module.

A command starts before the package has registered anything: ``import seg_plugins`` loads PyTorch
and Detectron2, which takes seconds, and fails where Detectron2 is still to be installed. So flags
are read first, and the package is loaded for the commands that use it.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ..arguments.commands import (
    COMMANDS,
    Help,
    arguments_of,
    command_parser,
    module_name,
    set_up,
)

PACKAGE = "seg_plugins"

# Needs neither PyTorch nor Detectron2: it runs before there is one.
ALONE = "install-detectron2"


def main(command: str | None = None, words: Sequence[str] | None = None) -> None:
    """Run a command.

    Args:
        command: the one that a script stands for; default: the first word names it.
        words: default: those of the process's command line.

    Raises:
        SystemExit: the command failed, with its exit status or what went wrong; or it was help.
    """
    words = list(sys.argv[1:] if words is None else words)
    prog = _prog()
    if command is None:
        if "_ARGCOMPLETE" in os.environ:
            _complete(prog)
        if not words or words[0] not in COMMANDS:
            _overview(prog).parse_args(words or ["--help"])  # which ends, for there is no command
        command, words = words[0], words[1:]
        prog = f"{prog} {command}"
    parser = command_parser(command, prog)
    args = parser.parse_args(words)
    module = arguments_of(command)
    if hasattr(module, "check_arguments"):
        module.check_arguments(parser, args)
    status = _run(command, parser, args)
    if status:
        sys.exit(status)


def _run(command: str, parser: argparse.ArgumentParser, args: argparse.Namespace) -> int | None:
    if command != ALONE:
        try:
            load_package()
        except ImportError as error:
            if error.name != "detectron2":
                raise
            sys.exit(f"error: {error}")
        _import_parts(parser, args)
    work = importlib.import_module(f".{module_name(command)}", __package__)
    try:
        status = work.run(args)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # `... | head` ends it quietly, when Python flushes at exit too
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except work.EXPECTED as error:
        sys.exit(f"error: {error}")


def load_package() -> None:
    """Run ``seg_plugins/__init__.py``, which registers everything, if that has been put off."""
    package = sys.modules[PACKAGE]
    if not hasattr(package, "register_all"):
        importlib.reload(package)


def _import_parts(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Import what ``--import`` names."""
    from ..config import ConfigError
    from ..plugins import import_parts

    try:
        import_parts(args.imports)
    except ConfigError as error:
        parser.error(str(error))


def _prog() -> str:
    """How the command was called, for its help."""
    script = Path(sys.argv[0])
    return f"python -m {PACKAGE}" if script.name == "__main__.py" else script.name


def _overview(prog: str) -> argparse.ArgumentParser:
    """The parser that knows no flags of the commands, and shows what there is."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Image segmentation for Detectron2.",
        epilog=f"flags and examples of a command: {prog} COMMAND --help",
        formatter_class=Help,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show it and exit")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        commands.add_parser(name, help=summary)
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"{PACKAGE} {importlib.metadata.version(PACKAGE)}")
        parser.exit()


def _complete(prog: str) -> None:
    """Answer the shell, which asks for completions through argcomplete, and end."""
    try:
        import argcomplete
    except ImportError:  # the shell's argcomplete is in another environment: nothing to offer
        sys.exit(1)

    parser = argparse.ArgumentParser(prog=prog)
    commands = parser.add_subparsers()
    for name in COMMANDS:
        set_up(commands.add_parser(name), name)
    argcomplete.autocomplete(parser)
