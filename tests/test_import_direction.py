"""Imports point one way, so that each part can be read, tested and replaced without the rest."""

from __future__ import annotations

import ast
import graphlib
import importlib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "seg_plugins"

# What each part may import besides itself, and does; docs/architecture.md shows it.
ALLOWED = {
    "arguments": set(),
    "compat": set(),
    "config": {"io"},
    "io": set(),
    "tasks": {"io"},
    "ops": {"io"},
    "data": {"config", "io", "tasks"},
    "visualization": {"tasks", "data", "io"},
    "modeling": {"config", "io", "ops"},
    "evaluation": {"config", "io", "ops", "data", "tasks"},
    "zoo": {"config", "io"},
    "registration": {"modeling", "data", "evaluation", "io", "zoo"},
    "plugins": {"arguments", "config", "modeling", "data", "evaluation"},
    "engine": {
        "arguments",
        "config",
        "io",
        "plugins",
        "modeling",
        "data",
        "evaluation",
        "visualization",
        "tasks",
    },
    "export": {
        "prediction",
        "engine",
        "config",
        "io",
        "modeling",
        "data",
        "ops",
        "runtime",
        "tasks",
    },
    "runtime": {"config", "io", "modeling"},
    "prediction": {
        "tasks",
        "runtime",
        "engine",
        "config",
        "io",
        "modeling",
        "evaluation",
        "data",
        "visualization",
        "ops",
    },
    "cli": {
        "arguments",
        "config",
        "data",
        "engine",
        "evaluation",
        "export",
        "io",
        "modeling",
        "plugins",
        "prediction",
        "runtime",
        "visualization",
        "zoo",
    },
    "testing": {"data", "modeling", "evaluation"},
    "__init__": {"compat", "config", "io", "plugins", "registration"},
}
MODULES = sorted(PACKAGE.rglob("*.py"))
ROOMS = sorted(file.parent.name for file in PACKAGE.glob("*/__init__.py"))


def imported_names(file: Path, package: Path = PACKAGE) -> set[str]:
    """Dotted names of the package that a file imports, at any depth of its code."""
    here = file.relative_to(package.parent).with_suffix("").parts
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(here[: len(here) - node.level]) if node.level else ""
            module = ".".join(part for part in (base, node.module or "") if part)
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.startswith(f"{package.name}.")}


def imported_parts(file: Path) -> set[str]:
    """First-level parts of seg_plugins that a file imports."""
    return {name.split(".")[1] for name in imported_names(file)}


def part_of(file: Path) -> str:
    """The first-level part of seg_plugins that a file belongs to; `python -m` is cli's."""
    part = file.relative_to(PACKAGE).with_suffix("").parts[0]
    return "cli" if part == "__main__" else part


def graph_of(folder: Path) -> dict[str, set[str]]:
    """Module -> the modules of its room that it imports: in functions and for typing alone, too."""
    package = folder.parent
    modules = {}
    for file in folder.rglob("*.py"):
        parts = file.relative_to(package.parent).with_suffix("").parts
        modules[".".join(parts[:-1] if file.name == "__init__.py" else parts)] = file
    graph = {}
    for module, file in modules.items():
        graph[module] = set()
        for name in imported_names(file, package):
            while name and name not in modules:  # what is no module is defined in the one above
                name = name.rpartition(".")[0]
            if name and name != module:
                graph[module].add(name)
            # Packages on the way to it are run, too, but for those that the file itself is in.
            while (name := name.rpartition(".")[0]) in modules:
                if not module.startswith(f"{name}.") and name != module:
                    graph[module].add(name)
    return graph


@pytest.mark.parametrize("file", MODULES, ids=lambda f: f.relative_to(PACKAGE).as_posix())
def test_imports_point_one_way(file: Path):
    part = part_of(file)
    assert part in ALLOWED, f"{part} is not a part of the design: add it to the table above"
    backward = imported_parts(file) - {part} - ALLOWED[part]
    assert not backward, f"{part} must not import {', '.join(sorted(backward))}"


@pytest.mark.parametrize("part", ALLOWED)
def test_the_table_has_only_imports_that_are_there(part: str):
    files = [file for file in MODULES if part_of(file) == part]
    assert set().union(*map(imported_parts, files)) - {part} == ALLOWED[part]


def test_the_check_sees_a_backward_import(tmp_path, monkeypatch):
    module = PACKAGE / "ops" / "_probe.py"
    monkeypatch.setattr(Path, "read_text", lambda self: "from ..engine import trainer")
    assert imported_parts(module) == {"engine"}


def circle_in(graph: dict[str, set[str]]) -> str:
    """Modules that import each other, ``a -> b -> a``; empty where there are none."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return " -> ".join(reversed(error.args[1]))
    return ""


@pytest.mark.parametrize("room", ROOMS)
def test_no_module_is_hidden_by_a_name_of_its_room(room):
    """What `seg_plugins.ROOM.NAME` means must not depend on what was imported before."""
    public = set(getattr(importlib.import_module(f"seg_plugins.{room}"), "__all__", ()))
    assert not public & {p.stem for p in (PACKAGE / room).iterdir()}


@pytest.mark.parametrize("room", ROOMS)
def test_no_room_has_a_circle(room):
    assert not circle_in(graph_of(PACKAGE / room))


@pytest.mark.parametrize(
    "code",
    [
        "from .first import name",
        "def lazy():\n    from . import first",
        "if TYPE_CHECKING:\n    from .first import Name",
        "import house.room.first as first",
        "from house.room import first",
        "from house.room import Public",  # which the room's __init__ has from first
        "from .inner import last",
    ],
)
def test_the_check_sees_a_circle(code, tmp_path):
    room = tmp_path / "house" / "room"
    (room / "inner").mkdir(parents=True)
    (room / "__init__.py").write_text("from .first import Public")
    (room / "first.py").write_text("from .second import x\nfrom ..other import second")
    (room / "inner" / "__init__.py").write_text("from ..first import Public")
    (room / "inner" / "last.py").write_text("import house.other.first")
    (room / "second.py").write_text("from ..other import first")
    assert not circle_in(graph_of(room))
    (room / "second.py").write_text(code)
    assert "house.room.second -> " in circle_in(graph_of(room))
