"""Help, wrong flags and completion: what is answered before PyTorch and Detectron2 load."""

from __future__ import annotations

import math
import os
import shlex
import subprocess
import sys
from pathlib import Path

from seg_plugins.arguments import export, predict
from seg_plugins.arguments.commands import COMMANDS, arguments_of, command_parser
from seg_plugins.export import FORMATS
from seg_plugins.prediction.outputs import KINDS
from seg_plugins.runtime import PRECISIONS, RUNTIMES

import pytest

ROOT = Path(__file__).resolve().parents[2]


def examples(command: str) -> list[list[str]]:
    """The words of each example of a command, from its own name on."""
    text = arguments_of(command).EXAMPLES.replace("\\\n", " ")
    return [shlex.split(line, comments=True) for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_a_screen_and_its_examples_are_right(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    parser = command_parser(command, f"seg-plugins {command}")
    lines = parser.format_help().splitlines()
    # As a terminal of 80 columns shows it, where longer lines take two.
    assert sum(max(1, math.ceil(len(line) / 80)) for line in lines) <= 40
    assert max(map(len, lines)) <= 100
    assert f"  seg-plugins {command}" in "\n".join(lines[lines.index("examples:") :])
    found = examples(command)
    assert len(found) >= 2
    for words in found:
        # `torchrun ... -m seg_plugins train` ends with the command's flags as well.
        start = 1 if words[0] == "%(prog)s" else words.index(command) + 1
        args = parser.parse_args(words[start:])
        if hasattr(arguments_of(command), "check_arguments"):
            arguments_of(command).check_arguments(parser, args)


def test_every_flag_of_a_training_is_there():
    text = command_parser("train").format_help()
    for flag in ("--config-file", "--data", "--resume", "--eval-only", "--num-gpus",
                 "--num-machines", "--machine-rank", "--dist-url", "--timeout", "--import",
                 "KEY VALUE"):  # fmt: skip
        assert flag in text


def test_kinds_and_formats_are_those_that_there_are():
    assert predict.KINDS == KINDS
    assert tuple(FORMATS) == export.FORMATS
    assert ("torch", *RUNTIMES) == predict.RUNTIMES
    assert predict.PRECISIONS == PRECISIONS


# A loader for each that fails: `find_spec` says that they are installed, importing them fails.
REFUSE = """
import importlib.machinery, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "detectron2"):
            return importlib.machinery.ModuleSpec(name, self)
    def create_module(self, spec):
        raise AssertionError(f"{spec.name} is imported")
    def exec_module(self, module): ...
sys.meta_path.insert(0, Refuse())
import seg_plugins_cli
def call(*words):
    sys.argv = ["seg-plugins", *words]
    try:
        seg_plugins_cli.main()
    except SystemExit as end:
        return end.code
"""


def child(code: str, *flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, **environment}
    command = [sys.executable, *flags, *(["-c", code] if code else [])]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_help_and_the_installer_need_neither_pytorch_nor_detectron2():
    code = f"""{REFUSE}
assert call("--help") == 0
for name in {list(COMMANDS)}:
    assert call(name, "--help") == 0
assert call("trian") == 2
assert call("check") == 2
assert not call("install-detectron2")
try:
    call("train", "--config-file", "x.yaml")
except AssertionError as error:
    print(error)
"""
    result = child(code)
    assert result.returncode == 0, result.stderr
    assert "invalid choice: 'trian'" in result.stderr
    assert "needs --dataset, --custom or --config-file" in result.stderr
    assert "detectron2 is installed already" in result.stdout
    # A command that works does load them, so what refuses them does refuse.
    assert result.stdout.splitlines()[-1] in ("torch is imported", "detectron2 is imported")


@pytest.mark.parametrize("words", [["--help"], ["predict", "--help"], ["install-detectron2"]])
def test_python_m_takes_the_same_way(words):
    result = child("", "-X", "importtime", "-m", "seg_plugins", *words)
    assert result.returncode == 0, result.stderr
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "seg_plugins.cli.main" in imported
    assert not imported & {"torch", "detectron2", "numpy", "seg_plugins.compat"}
    if words[0] == "predict":
        assert result.stdout.startswith("usage: python -m seg_plugins predict (")


def test_the_shell_is_told_commands_and_flags(tmp_path):
    pytest.importorskip("argcomplete", reason="needs argcomplete (pip install 'seg_plugins[dev]')")

    def completions(line: str) -> set[str]:
        file = tmp_path / "answer"
        code = "import sys; sys.argv = ['seg-plugins']; import seg_plugins_cli as c; c.main()"
        result = child(code, _ARGCOMPLETE="1", COMP_LINE=line, COMP_POINT=str(len(line)),
                       _ARGCOMPLETE_IFS=" ", _ARGCOMPLETE_STDOUT_FILENAME=str(file))  # fmt: skip
        assert result.returncode == 0, result.stderr
        return set(file.read_text().split())

    assert completions("seg-plugins re") == {"report"}
    assert completions("seg-plugins train --num") == {"--num-gpus", "--num-machines"}
    assert completions("seg-plugins export --format o") == {"onnx", "openvino"}
