"""From configuration files and options to values; mistakes are answered with the fix."""

from __future__ import annotations

import difflib
import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode

from .errors import ConfigError
from .files import find_config, read_yaml
from .keys import get_cfg, own_key_functions
from .values import typed


def load_config(path: str | Path, opts: Sequence[str] = ()) -> CfgNode:
    """Read a configuration file and its bases, without executing anything in them.

    Args:
        path: a YAML file, or the name of a shipped one (see :func:`get_config_file`).
        opts: ``KEY VALUE`` pairs that override the file, as on the command line.

    Raises:
        ConfigError: a missing file, a YAML tag that would run code, an unknown key (the nearest
            known one is named) or a value of the wrong type.
    """
    cfg = get_cfg()
    merge_file(cfg, find_config(path))
    merge_opts(cfg, opts)
    return cfg


def merge_file(cfg: CfgNode, file: Path) -> None:
    """Apply a YAML file and its bases in place; errors as :func:`load_config`."""
    content = read_yaml(file)
    _check_imports(content.get("IMPORTS") or [], file)
    _merge(cfg, content, cfg, str(file))


def config_from_text(text: str, name: str) -> CfgNode:
    """The whole configuration that another file holds, such as an exported model.

    Args:
        text: YAML without bases.
        name: of that file, for errors.

    Raises:
        ConfigError: as :func:`load_config`.
    """
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: its configuration is no YAML that is read: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{name}: its configuration should hold keys and values")
    cfg = get_cfg()
    _check_imports(content.get("IMPORTS") or [], name)
    _merge(cfg, content, cfg, name)
    return cfg


def module_of_import(name: str) -> str:
    """The module that ``--import`` makes of a Python file, or the module that it names."""
    return Path(name).stem if name.endswith(".py") else name


def _check_imports(names: Any, file: Path | str) -> None:
    """Nothing in a file imports code; what a run was made with has to be there already.

    Raises:
        ConfigError: a module is missing, with the flag that imports it.
    """
    if not isinstance(names, list):
        raise ConfigError(f"{file}: IMPORTS {names!r} should be a list, e.g. [{names}]")
    missing = [name for name in names if module_of_import(str(name)) not in sys.modules]
    if missing:
        flags = " ".join(f"--import {name}" for name in missing)
        raise ConfigError(
            f"{file} was made with parts of {', '.join(map(str, missing))}, which a configuration "
            f"does not import: give {flags} if you trust that code (in Python: import it first; "
            "a file may have moved: any path to one of that name will do)"
        )


def merge_opts(cfg: CfgNode, opts: Sequence[str]) -> None:
    """Apply ``KEY VALUE`` pairs in place; errors as :func:`load_config`."""
    opts = list(opts)
    if len(opts) % 2:
        raise ConfigError(
            f"Options come as KEY VALUE pairs separated by spaces; '{opts[-1]}' is left over."
        )
    for key, value in zip(opts[::2], opts[1::2], strict=True):
        parts = key.split(".")
        node: Any = cfg
        for depth, part in enumerate(parts):
            if not isinstance(node, CfgNode) or part not in node:
                raise ConfigError(_unknown_key(cfg, parts, depth, "the command line"))
            parent, node = node, node[part]
        setattr(parent, parts[-1], _typed(key, value, node, "the command line"))


def _merge(
    node: CfgNode, loaded: dict[str, Any], cfg: CfgNode, file: str, path: tuple[str, ...] = ()
) -> None:
    """Set the values of a file, in the types of their keys."""
    for key, value in loaded.items():
        if key not in node:
            raise ConfigError(_unknown_key(cfg, [*path, key], len(path), file))
        if isinstance(value, dict) and isinstance(node[key], CfgNode):
            _merge(node[key], value, cfg, file, (*path, key))
        else:
            setattr(node, key, _typed(".".join([*path, key]), value, node[key], file))


def _typed(key: str, value: Any, present: Any, source: str) -> Any:
    return typed(key, value, None if key in _any_type(own_key_functions()) else present, source)


@functools.cache
def _any_type(_: int) -> frozenset[str]:
    """Keys that are None by default: they may be a text here and a list there."""
    cfg = get_cfg()
    return frozenset(key for key in _all_keys(cfg) if get_value(cfg, key) is None)


def get_value(cfg: CfgNode, key: str) -> Any:
    """The value of a key in full, such as ``SOLVER.BASE_LR``."""
    for part in key.split("."):
        cfg = cfg[part]
    return cfg


def _unknown_key(cfg: CfgNode, parts: Sequence[str], depth: int, file: str) -> str:
    """The message for an unknown key: the nearest sibling, else the same name elsewhere."""
    node = cfg
    for part in parts[:depth]:
        if not isinstance(node, CfgNode):
            break
        node = node[part]
    parts = [str(part) for part in parts]
    prefix = "".join(f"{part}." for part in parts[:depth])
    siblings = [prefix + key for key in node] if isinstance(node, CfgNode) else []
    name = ".".join(parts)
    near = difflib.get_close_matches(prefix + parts[depth], siblings, n=1, cutoff=0.6)
    near += [key for key in _all_keys(cfg) if key.endswith("." + parts[-1]) and key not in near][:3]
    if not near:
        near = difflib.get_close_matches(name, _all_keys(cfg), n=3, cutoff=0.3)
    return f"{file}: unknown key {name}. Did you mean {' or '.join(near) or 'another name'}?"


def _all_keys(cfg: CfgNode, prefix: str = "") -> list[str]:
    keys: list[str] = []
    for key, value in cfg.items():
        keys.append(prefix + key)
        if isinstance(value, CfgNode):
            keys += _all_keys(value, f"{prefix}{key}.")
    return keys
