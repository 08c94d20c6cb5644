"""Imports point one way, so that each part can be read, tested and replaced without the rest."""

from __future__ import annotations

import ast
import graphlib
import importlib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "seg_plugins"

# What each part may import besides itself.
ALLOWED = {
    "compat": set(),
    "config": set(),
    "io": set(),
    "ops": set(),
    "tasks": set(),
    "data": {"config", "io", "tasks"},
    "visualization": {"tasks", "data"},
    "modeling": {"config", "ops"},
    "evaluation": {"config", "ops", "data", "tasks"},
    "registration": {"modeling", "data", "evaluation"},
    "engine": {
        "config",
        "io",
        "registration",
        "modeling",
        "data",
        "evaluation",
        "visualization",
        "ops",
        "tasks",
    },
    "export": {"prediction", "engine", "config", "io", "modeling", "data", "ops"},
    "prediction": {
        "engine",
        "config",
        "io",
        "modeling",
        "evaluation",
        "data",
        "visualization",
        "ops",
    },
    "__init__": {"compat", "config", "registration"},
}
MODULES = sorted(PACKAGE.rglob("*.py"))
# Rooms whose modules form no circle. In `prediction` a method imports what writes its class.
ROOMS = sorted({p.name for p in PACKAGE.iterdir() if (p / "__init__.py").exists()} - {"prediction"})


def module_name(file: Path) -> str:
    parts = ("seg_plugins", *file.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {module_name(file) for file in MODULES}


def imported_modules(file: Path) -> set[str]:
    """What a file imports, at any depth of its code and for types alone, too."""
    here = ("seg_plugins", *file.relative_to(PACKAGE).with_suffix("").parts)
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(here[: len(here) - node.level]) if node.level else ""
            module = ".".join(part for part in (base, node.module or "") if part)
            members = {f"{module}.{alias.name}" for alias in node.names}
            found |= {m if m in NAMES or module == "seg_plugins" else module for m in members}
    return found


def imported_parts(file: Path) -> set[str]:
    """First-level parts of seg_plugins that a file imports."""
    return {n.split(".")[1] for n in imported_modules(file) if n.startswith("seg_plugins.")}


@pytest.mark.parametrize("file", MODULES, ids=lambda f: f.relative_to(PACKAGE).as_posix())
def test_imports_point_one_way(file: Path):
    part = file.relative_to(PACKAGE).with_suffix("").parts[0]
    assert part in ALLOWED, f"{part} is not a part of the design: add it to the table above"
    backward = imported_parts(file) - {part} - ALLOWED[part]
    assert not backward, f"{part} must not import {', '.join(sorted(backward))}"


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_has_no_circle_of_imports(room: str):
    files = [file for file in MODULES if module_name(file).split(".")[1:2] == [room]]
    inside = {module_name(file) for file in files}
    graph = {module_name(f): (imported_modules(f) & inside) - {module_name(f)} for f in files}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" imports ".join(error.args[1][::-1]))


def test_no_module_of_the_engine_is_hidden_by_a_function_of_its_name():
    """What `seg_plugins.engine.NAME` means must not depend on what was imported before."""
    public = set(importlib.import_module("seg_plugins.engine").__all__)
    assert not public & {p.stem for p in (PACKAGE / "engine").iterdir()}


def test_the_check_sees_a_backward_import(tmp_path, monkeypatch):
    module = PACKAGE / "ops" / "_probe.py"
    monkeypatch.setattr(Path, "read_text", lambda self: "from ..engine import trainer")
    assert imported_parts(module) == {"engine"}
