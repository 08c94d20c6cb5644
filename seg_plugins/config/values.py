"""Values as files and command lines spell them, brought to the types of their keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode

from .errors import ConfigError

# Keys whose value is a path of the user's own: ~ is the home folder.
PATHS = ("OUTPUT_DIR", "MODEL.WEIGHTS", "DATASETS.CUSTOM", "INPUT.DECODED_CACHE.FOLDER")


def typed(key: str, given: Any, default: Any, source: str) -> Any:
    """A value of the type of the key's default, where there is only one way to read it.

    A whole number serves as a float and the other way round; lists and tuples serve for each
    other, in Python's or YAML's spelling; None is an empty text.

    Args:
        key: in full, e.g. ``SOLVER.BASE_LR``.
        given: from YAML, or text from the command line.
        default: the present value; None takes anything.
        source: file or command line, for the message.

    Raises:
        ConfigError: another type, with the spelling that works.
    """
    value = CfgNode._decode_cfg_value(given)
    if isinstance(default, (list, tuple)) and isinstance(value, str):
        value = _yaml_list(value)
    if default is None or type(value) is type(default):
        pass
    elif isinstance(default, str):
        value = "" if value is None else value
        if isinstance(value, (int, float)):  # a name of digits, such as a run's number
            value = str(given)
    elif isinstance(default, float) and type(value) is int:
        value = float(value)
    elif type(default) is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    elif isinstance(default, (list, tuple)) and isinstance(value, (list, tuple)):
        value = type(default)(value)
    fits = default is None or type(value) is type(default)
    if fits and isinstance(default, (list, tuple)):
        fits = _members_fit(key, value, default)
    if not fits:
        raise ConfigError(f"{source}: {key} {given!r} {_advice(key, value, default)}")
    return _home(value) if key in PATHS else value


def _yaml_list(text: str) -> Any:
    """A list as YAML files have it, ``[res2, res5]``: shells eat the quotes of Python's form."""
    if not text.lstrip().startswith("["):
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _members_fit(key: str, value: Any, default: Any) -> bool:
    """Numbers where there are numbers, texts where there are texts."""
    if key in ("DATASETS.TRAIN", "DATASETS.TEST"):
        return all(isinstance(member, str) for member in value)
    for kind in (str, (int, float)):
        if default and all(isinstance(member, kind) for member in default):
            return all(isinstance(member, kind) for member in value)
    return True


def _advice(key: str, value: Any, default: Any) -> str:
    name = key.rpartition(".")[2]
    if isinstance(default, (list, tuple)):
        text = bool(default and isinstance(default[0], str)) or key.startswith("DATASETS.")
        members = value if isinstance(value, (list, tuple)) else [value] if value else []
        example = tuple(str(m) if text else CfgNode._decode_cfg_value(m) for m in members)
        if not text and not _members_fit(key, example, default):
            example = tuple(default)
        return (
            f'should be a list{" of names" if text else ""}: {key} "{example}" on the command '
            f"line, {name}: {list(example)} in a YAML file"
        )
    if isinstance(default, CfgNode):
        return f"is a group of keys: {', '.join(f'{key}.{k}' for k in list(default)[:3])}, ..."
    wanted = {bool: "True or False", int: "a whole number", float: "a number", str: "a text"}
    return f"should be {wanted.get(type(default), type(default).__name__)}, e.g. {default!r}"


def _home(path: str) -> str:
    return str(Path(path).expanduser()) if path.startswith("~") else path
