"""The page of configuration keys, from the comments beside their defaults in seg_plugins/config.

The functions there run once on Detectron2's configuration. Each call of ``set_defaults`` is noted
with the keys that it adds and the comment right above it, which is their meaning.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import seg_plugins  # first: it makes Detectron2 run

from detectron2.config import CfgNode
from detectron2.config import get_cfg as detectron2_keys

INTRODUCTION = """# Configuration keys

The keys that `seg_plugins` adds to [Detectron2's](
https://detectron2.readthedocs.io/en/latest/modules/config.html#yaml-config-references), which work
as well. A YAML file sets them, and so do `KEY VALUE` pairs at the end of a command line:
`SOLVER.EPOCHS 20 MODEL.CHANNELS_LAST True`.

This page is made from the files in `seg_plugins/config`, where each key stands with its default.
"""


@dataclass(frozen=True)
class Key:
    """A configuration key.

    Attributes:
        name: in full, e.g. ``MODEL.UNET.DEPTH``.
        default: its value where nothing sets it.
        meaning: the comment right above it; empty where there is none.
        about: the line "# --- ..." before, on the keys from there on; empty if there is none.
        place: file and line.
    """

    name: str
    default: Any
    meaning: str
    about: str
    place: str


@cache
def added_keys() -> tuple[Key, ...]:
    """The keys that the package adds, in the order of the files."""
    calls: list[tuple[CfgNode, dict[str, Any], Path, int]] = []

    def noted(node: CfgNode, **given: Any) -> None:
        caller = sys._getframe(1)
        values = {key: value for key, value in given.items() if not isinstance(value, CfgNode)}
        calls.append((node, values, Path(caller.f_code.co_filename), caller.f_lineno))
        for key, value in given.items():
            node.setdefault(key, value)

    cfg = detectron2_keys()
    there = {name for name, _ in leaves(cfg)}
    with ExitStack() as patches:
        for name, module in list(sys.modules.items()):
            if name.startswith("seg_plugins.config.") and hasattr(module, "set_defaults"):
                patches.enter_context(mock.patch.object(module, "set_defaults", noted))
        seg_plugins.add_seg_config(cfg)
    at = {id(node): path for path, node in nodes(cfg)}
    found: dict[str, Key] = {}
    for node, values, file, line in calls:
        for key, value in values.items():
            name = at[id(node)] + key
            if name not in there:
                where = line_of(file, line, key)
                comment = comment_above(file, where)
                found.setdefault(name, Key(name, value, *comment, f"{file.name}:{where}"))
    return tuple(found.values())


def nodes(node: CfgNode, path: str = "") -> Iterator[tuple[str, CfgNode]]:
    """A node and those below it, each with its path: "MODEL.UNET."; "" is the top."""
    yield path, node
    for key, value in node.items():
        if isinstance(value, CfgNode):
            yield from nodes(value, f"{path}{key}.")


def leaves(node: CfgNode) -> Iterator[tuple[str, Any]]:
    """Every key below a node, by its full name, with its value."""
    for path, inner in nodes(node):
        for key, value in inner.items():
            if not isinstance(value, CfgNode):
                yield f"{path}{key}", value


@cache
def _calls(file: Path) -> dict[int, ast.Call]:
    """The calls in a file, by the line that they start in."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.lineno: node for node in ast.walk(tree) if isinstance(node, ast.Call)}


def line_of(file: Path, line: int, key: str) -> int:
    """The line that a key's comment stands above.

    It is that of the keyword; several keywords in one line have none of their own: 1, which nothing
    stands above.
    """
    words = _calls(file)[line].keywords
    at = next(word.lineno for word in words if word.arg == key)
    return at if sum(word.lineno == at for word in words) == 1 else 1


def comment_above(file: Path, line: int) -> tuple[str, str]:
    """The comment that ends in the line above, and the last "# --- ..." before it.

    The latter holds until the next one or to the end of the function.
    """
    before = [text.strip() for text in file.read_text(encoding="utf-8").splitlines()[: line - 1]]
    words: list[str] = []
    while before and before[-1].startswith("# ") and not before[-1].startswith("# ---"):
        words.insert(0, before.pop().removeprefix("# "))
    for text in reversed(before):
        if text.startswith("# --- "):
            return " ".join(words), text.removeprefix("# --- ")
        if text.startswith("def "):
            break
    return " ".join(words), ""


def group_of(name: str) -> str:
    """The heading that a key stands under: the first two parts of its path."""
    return ".".join(name.split(".")[:-1][:2])


def page() -> str:
    """The page in Markdown: a table for each group of keys."""
    groups: dict[str, list[Key]] = {}
    for key in added_keys():
        groups.setdefault(group_of(key.name), []).append(key)
    lines = [INTRODUCTION]
    for group in sorted(groups):
        lines += [f"\n## {group or 'At the top'}\n", "| key | default | meaning |", "|---|---|---|"]
        lines += map(table_line, groups[group])
    return "\n".join(lines) + "\n"


def table_line(key: Key) -> str:
    """A row of the table; of a shared key it says whose the name is."""
    shared = f" (*{key.about}*)" if key.about.startswith("shared with") else ""
    # Where comments name keys and values, angle brackets and asterisks are no markup.
    meaning = re.sub(r"([*_<>|\[\]])", r"\\\1", key.meaning)
    default = repr(key.default).replace("|", "\\|")
    name = key.name.removeprefix(f"{group_of(key.name)}.")
    return f"| `{name}` | `{default}` | {meaning}{shared} |"
