"""The commands of ``seg-plugins``, and the parser of each."""

from __future__ import annotations

import argparse
import importlib
from types import ModuleType

# Name -> what it does, in the order of the overview. A name is that of a module in this folder and
# of one in `seg_plugins.cli`, with an underscore for the hyphen.
COMMANDS = {
    "train": "train, resume or evaluate a model",
    "predict": "predict images, folders, videos and huge TIFFs",
    "check": "check a dataset before training on it",
    "evaluate": "score files of predictions, without a model",
    "report": "write report.html of a run, or of several side by side",
    "export": "write a model as ONNX, OpenVINO, TorchScript or safetensors",
    "analyze": "count parameters, multiply-adds and memory of a model",
    "convert": "write weights of other libraries under a model's names",
    "visualize": "draw samples of a dataset, with their labels",
    "install-detectron2": "install Detectron2, which this package extends",
}


def module_name(command: str) -> str:
    """The name of a command's modules."""
    return command.replace("-", "_")


def arguments_of(command: str) -> ModuleType:
    """The module of a command.

    It has ``add_arguments(parser)`` and ``EXAMPLES``; it may have ``ABOUT`` (more description),
    ``TAKES_PARTS`` (False: no ``--import``) and ``check_arguments(parser, args)``, which ends with
    a usage error where flags do not go together.
    """
    return importlib.import_module(f".{module_name(command)}", __package__)


def command_parser(
    command: str,
    prog: str | None = None,
    import_action: str | type[argparse.Action] = "append",
) -> argparse.ArgumentParser:
    """The parser of one command.

    Args:
        command: one of :data:`COMMANDS`.
        prog: how the command was called, for its help; default: the name of the script.
        import_action: what ``--import`` does; by default it collects what is to be imported.
    """
    parser = argparse.ArgumentParser(prog=prog)
    set_up(parser, command, import_action)
    return parser


def set_up(
    parser: argparse.ArgumentParser,
    command: str,
    import_action: str | type[argparse.Action] = "append",
) -> None:
    """Give a parser the flags and the help of a command."""
    module = arguments_of(command)
    summary = COMMANDS[command]
    parser.description = f"{summary[0].upper()}{summary[1:]}.\n{getattr(module, 'ABOUT', '')}"
    parser.epilog = f"examples:\n{module.EXAMPLES.strip(chr(10))}"
    parser.formatter_class = Help
    module.add_arguments(parser)
    if getattr(module, "TAKES_PARTS", True):
        add_import_argument(parser, import_action)


def add_import_argument(
    parser: argparse.ArgumentParser, action: str | type[argparse.Action] = "append"
) -> None:
    """The flag ``--import``; ``args.imports`` has what it named."""
    parser.add_argument(
        "--import",
        dest="imports",
        action=action,
        default=[],
        metavar="PART",
        help="file or module with parts of your own; repeatable",
    )


class Help(argparse.RawDescriptionHelpFormatter):
    """One line for most flags: with what stands above and below them, help fits a screen."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26)
