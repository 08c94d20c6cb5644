"""Imports point one way, so that each part can be read, tested and replaced without the rest."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "seg_plugins"

# What each part may import besides itself.
ALLOWED = {
    "compat": set(),
    "config": {"io"},
    "io": set(),
    "tasks": {"io"},
    "ops": {"io"},
    "data": {"config", "io", "tasks"},
    "visualization": {"io", "tasks"},
    "modeling": {"config", "io", "ops"},
    "evaluation": {"config", "io", "ops", "data", "tasks"},
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
    "__init__": {"compat", "config", "io", "registration"},
}
MODULES = sorted(PACKAGE.rglob("*.py"))


def imported_parts(file: Path) -> set[str]:
    """First-level parts of seg_plugins that a file imports, at any depth of its code."""
    here = ("seg_plugins", *file.relative_to(PACKAGE).with_suffix("").parts)
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(here[: len(here) - node.level]) if node.level else ""
            module = ".".join(part for part in (base, node.module or "") if part)
            names = (
                [module]
                if module != "seg_plugins"
                else [f"seg_plugins.{alias.name}" for alias in node.names]
            )
        found |= {n.split(".")[1] for n in names if n.startswith("seg_plugins.")}
    return found


@pytest.mark.parametrize("file", MODULES, ids=lambda f: f.relative_to(PACKAGE).as_posix())
def test_imports_point_one_way(file: Path):
    part = file.relative_to(PACKAGE).with_suffix("").parts[0]
    assert part in ALLOWED, f"{part} is not a part of the design: add it to the table above"
    backward = imported_parts(file) - {part} - ALLOWED[part]
    assert not backward, f"{part} must not import {', '.join(sorted(backward))}"


def test_the_check_sees_a_backward_import(tmp_path, monkeypatch):
    module = PACKAGE / "ops" / "_probe.py"
    monkeypatch.setattr(Path, "read_text", lambda self: "from ..engine import trainer")
    assert imported_parts(module) == {"engine"}
