"""Other people's modules: named on the command line, installed, recorded, asked for."""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
from importlib.metadata import EntryPoint

import seg_plugins
from seg_plugins import plugins
from seg_plugins.config import ConfigError, keys, load_config
from seg_plugins.engine import argument_parser, setup
from seg_plugins.modeling.losses import LOSS_REGISTRY

import pytest

QUICK = "quickstart/unet_shapes.yaml"
LOSS = """
from detectron2.config import CfgNode
from seg_plugins.config import add_keys
from seg_plugins.modeling.losses import LOSS_REGISTRY

@LOSS_REGISTRY.register()
def {name}(logits, targets, valid, weights, *, share=0.5):
    return logits.sum() * share

@add_keys
def add(cfg):
    cfg.MODEL.{key} = CfgNode({{"DEPTH": 3}})
    cfg.MODEL.SEM_SEG_HEAD.{key}_BINS = [1, 2]
"""


@pytest.fixture
def clean(monkeypatch):
    """Modules, registered names, keys and the search path are put back."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(plugins, "_imported", {})
    monkeypatch.setattr(plugins, "_installed", {})
    monkeypatch.setattr(keys, "_own", list(keys._own))
    monkeypatch.setattr(LOSS_REGISTRY, "_obj_map", dict(LOSS_REGISTRY._obj_map))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(folder, name):
    file = folder / f"{name}.py"
    file.write_text(LOSS.format(name=name, key=name.upper()))
    return file


def parse(*words):
    parser = argparse.ArgumentParser()
    plugins.add_import_argument(parser)
    return parser.parse_args(words)


def test_a_file_is_imported_once_with_what_stands_beside_it(tmp_path, clean):
    file = write(tmp_path, "plug_a")
    (tmp_path / "plug_beside.py").write_text("VALUE = 7")
    file.write_text(file.read_text() + "import plug_beside\nassert plug_beside.VALUE == 7\n")
    assert parse("--import", str(file), "--import", str(file)).imports == [str(file)] * 2
    assert "plug_a" in LOSS_REGISTRY
    assert sys.modules["plug_a"].__file__ == str(file)


def test_a_module_is_imported(tmp_path, clean, monkeypatch):
    write(tmp_path, "plug_b")
    monkeypatch.syspath_prepend(tmp_path)
    parse("--import", "plug_b")
    assert "plug_b" in LOSS_REGISTRY


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere/parts.py", "there is no such file"),
        ("no_such_module.parts", "there is no such module. A file is named with its .py"),
        ("", "there is no such module"),
        (".parts", "there is no such module"),
        ("folder/parts", "there is no such module. A file is named with its .py"),
        ("argparse.py", "a module 'argparse' is imported already, from .*give the file another"),
    ],
)
def test_what_cannot_be_imported_is_named(name, message, tmp_path, clean, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "argparse.py").write_text("")
    with pytest.raises(ConfigError, match=message):
        plugins.import_parts([name])
    with pytest.raises(SystemExit):
        parse("--import", name)
    assert f"error: --import {name}: " in capsys.readouterr().err


def test_an_error_inside_a_module_is_shown_as_it_is(tmp_path, clean):
    (tmp_path / "plug_c.py").write_text("import plug_that_is_missing")
    with pytest.raises(ModuleNotFoundError, match="plug_that_is_missing"):
        plugins.import_parts([str(tmp_path / "plug_c.py")])
    assert "plug_c" not in sys.modules


def test_keys_of_a_part_are_those_of_every_configuration(tmp_path, clean):
    plugins.import_parts([str(write(tmp_path, "plug_d"))])
    cfg = load_config(QUICK, ["MODEL.PLUG_D.DEPTH", "5"])
    assert cfg.MODEL.PLUG_D.DEPTH == 5
    assert cfg.MODEL.SEM_SEG_HEAD.PLUG_D_BINS == [1, 2]
    seg_plugins.add_seg_config(cfg)  # once more
    assert cfg.MODEL.PLUG_D.DEPTH == 5
    assert cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 8


def test_the_record_names_what_was_imported_and_reading_it_asks_for_it(tmp_path, clean):
    file = write(tmp_path, "plug_e")
    plugins.import_parts([str(file)])
    cfg = load_config(QUICK)
    cfg.IMPORTS = plugins.imports_of(cfg)
    assert [str(file)] == cfg.IMPORTS
    saved = tmp_path / "config.yaml"
    saved.write_text(cfg.dump())
    assert load_config(saved).MODEL.PLUG_E.DEPTH == 3
    del sys.modules["plug_e"]
    with pytest.raises(ConfigError, match=rf"made with parts of {file}.*give --import {file}"):
        load_config(saved)
    assert "plug_e" not in sys.modules  # nothing in a file imports code


def test_installed_packages_are_imported_and_those_used_are_recorded(tmp_path, clean, monkeypatch):
    for name in ("plug_f", "plug_g"):
        write(tmp_path, name)
    (tmp_path / "plug_broken.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    points = [EntryPoint(n, n, plugins.GROUP) for n in ("plug_f", "plug_broken", "plug_g")]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points)
    with pytest.warns(UserWarning, match="offers 'plug_broken' .* ZeroDivisionError"):
        plugins.load_entry_points()
    assert "plug_f" in LOSS_REGISTRY
    assert "plug_g" in LOSS_REGISTRY
    loss = "cross_entropy + 0.5 * plug_g(share=0.1)"
    cfg = load_config(QUICK, ["MODEL.SEM_SEG_HEAD.LOSS_TYPE", loss])
    assert plugins.imports_of(cfg) == ["plug_g"]


@pytest.mark.parametrize("value", ["parts.py", "5"])
def test_imports_that_are_no_list_are_named(value, tmp_path):
    """A string would be read letter by letter."""
    file = tmp_path / "config.yaml"
    file.write_text(f"IMPORTS: {value}")
    with pytest.raises(ConfigError, match=rf"config.yaml: IMPORTS .*list, e.g. \[{value}\]"):
        load_config(file)


def test_the_record_is_not_set_by_hand():
    words = ["--config-file", QUICK, "IMPORTS", "['parts.py']"]
    with pytest.raises(ConfigError, match="give --import itself"):
        setup(argument_parser().parse_args(words))
