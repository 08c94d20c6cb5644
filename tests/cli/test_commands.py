"""The commands as they are started: with everything there, and without Detectron2."""

from __future__ import annotations

import importlib
import os
import re
import sys
from pathlib import Path

import seg_plugins
from seg_plugins import plugins
from seg_plugins.arguments.commands import COMMANDS, module_name
from seg_plugins.cli.main import main

import pytest
from test_help import ROOT, child

# As where a package is not installed.
WITHOUT = """
import importlib.machinery, sys
finder, hidden = importlib.machinery.PathFinder, {hidden!r}
find = finder.find_spec
def find_others(cls, name, path=None, target=None):
    return None if name.partition(".")[0] == hidden else find(name, path, target)
finder.find_spec = classmethod(find_others)
"""
INSTALL = "seg-plugins install-detectron2"


def test_importing_the_package_without_detectron2_names_the_command_that_installs_it():
    result = child(WITHOUT.format(hidden="detectron2") + "import seg_plugins")
    last = result.stderr.strip().splitlines()
    assert last[-1].strip() == INSTALL
    assert any(line.startswith("ImportError: seg_plugins is") for line in last)


def test_a_command_without_detectron2_says_the_same_in_short():
    code = (
        "import seg_plugins_cli as c; sys.argv = ['seg-plugins', 'train', '--data', 'x']; c.main()"
    )
    result = child(WITHOUT.format(hidden="detectron2") + code)
    assert result.returncode == 1
    assert result.stderr.startswith("error: seg_plugins is")
    assert result.stderr.strip().splitlines()[-1].strip() == INSTALL


def test_another_package_that_is_missing_is_named_as_it_is():
    result = child(WITHOUT.format(hidden="fvcore") + "import seg_plugins")
    assert result.stderr.strip().endswith("ModuleNotFoundError: No module named 'fvcore'")


@pytest.mark.parametrize(
    ("argv", "orig_argv", "started"),
    [
        (["-m"], ["python", "-m", "seg_plugins"], True),
        (
            ["-m", "train", "--data", "x"],
            ["python", "-u", "-m", "seg_plugins", "train", "--data", "x"],
            True,
        ),
        (["-m"], ["python", "-m", "seg_plugins.ops"], False),
        (["-m", "seg_plugins"], ["python", "-m", "mine", "seg_plugins"], False),
        (["mine.py", "-m", "seg_plugins"], ["python", "mine.py", "-m", "seg_plugins"], False),
        (["-c"], ["python", "-c", "import seg_plugins"], False),
        ([], ["python"], False),
    ],
)
def test_only_python_m_of_the_package_itself_waits(argv, orig_argv, started, monkeypatch):
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(sys, "orig_argv", orig_argv)
    assert seg_plugins._is_started_by_python_m() is started


def test_python_m_registers_everything_for_a_command_that_works():
    result = child("", "-m", "seg_plugins", "analyze", "--config-file", "isbi2012/unet_valid.yaml",
                   "--size", "64", "64")  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "published: 31,030,658 parameters (layer table)"
    wrong = child("", "-m", "seg_plugins", "analyze", "--config-file", "nowhere.yaml")
    assert wrong.returncode == 1
    assert wrong.stderr.splitlines()[-1].startswith("error: 'nowhere.yaml' is neither a file")


def test_parts_are_imported_before_the_work_begins(tmp_path, capsys, monkeypatch):
    part = tmp_path / "part_of_a_command.py"
    part.write_text("print('part')")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(plugins, "_imported", {})  # later runs would name it
    words = ["--config-file", "isbi2012/unet_valid.yaml", "--size", "64", "64"]
    main(None, ["analyze", "--import", str(part), *words])
    assert capsys.readouterr().out.splitlines()[:2] == ["part", "one image of 64 x 64"]
    del sys.modules["part_of_a_command"]
    with pytest.raises(SystemExit, match="2"):
        main("analyze", ["--import", "nowhere.py", *words])
    assert "error: --import nowhere.py: there is no such file" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_its_work_and_a_script_in_tools(command):
    work = importlib.import_module(f"seg_plugins.cli.{module_name(command)}")
    assert callable(work.run)
    assert all(issubclass(error, Exception) for error in work.EXPECTED)
    scripts = [f for f in (ROOT / "tools").glob("*.py") if f'main("{command}")' in f.read_text()]
    assert len(scripts) == 1
    assert "from seg_plugins_cli import main" in scripts[0].read_text()


def test_scripts_in_tools_can_be_executed():
    scripts = [file for file in (ROOT / "tools").glob("*.py") if file.read_bytes()[:2] == b"#!"]
    assert len(scripts) > 20
    assert all(os.access(file, os.X_OK) for file in scripts)


def test_the_documentation_lists_every_command():
    text = Path(ROOT, "docs", "commands.md").read_text()
    assert re.findall(r"^\| `seg-plugins ([\w-]+)", text, re.M) == list(COMMANDS)
