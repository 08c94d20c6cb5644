"""Commands in messages can be pasted."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sysconfig

from seg_plugins.io.command_line import command_line

import pytest


def test_the_script_is_named_where_it_is_found(monkeypatch):
    folder = sysconfig.get_path("scripts")
    monkeypatch.setattr(shutil, "which", lambda name: os.path.join(folder, name))
    assert command_line("check", "--custom", "my data.yaml") == (
        "seg-plugins check --custom 'my data.yaml'"
    )


@pytest.mark.parametrize("found", [None, "/another/environment/bin/seg-plugins"])
def test_elsewhere_the_interpreter_is(found, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: found)
    command = command_line("predict", "--help")
    assert command.endswith(" -m seg_plugins predict --help")
    done = subprocess.run(shlex.split(command), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage:" in done.stdout


@pytest.mark.parametrize("command", ["analyze --config-file isbi2012/unet_valid.yaml --size 64 64"])
def test_a_reader_that_stops_early_ends_a_command_quietly(command):
    shown = f"{command_line(*command.split())} | true"
    done = subprocess.run(["bash", "-c", shown], capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
