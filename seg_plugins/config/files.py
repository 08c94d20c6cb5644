"""Configuration files: where they are, and what they and their ``_BASE_`` files say.

Nothing in a file is executed.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import yaml

from .errors import ConfigError


def config_root() -> Path:
    """The folder of the shipped configurations: ``configs/`` of a checkout or of the wheel."""
    package = Path(__file__).parents[1]
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "_base_").is_dir():
            return folder
    raise ConfigError(f"No shipped configurations beside {package}: is the package complete?")


def get_config_file(name: str) -> str:
    """Path of a shipped configuration, e.g. ``camvid/deeplabv3plus_r18.yaml``.

    Raises:
        ConfigError: there is no such configuration; the nearest names are listed.
    """
    root = config_root()
    path = root / name
    if path.is_file():
        return str(path)
    names = sorted(p.relative_to(root).as_posix() for p in root.glob("[!_]*/*.yaml"))
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or names
    raise ConfigError(
        f"'{name}' is neither a file here nor a shipped configuration. Nearest of these: "
        f"{', '.join(near)}"
    )


def find_config(path: str | Path) -> Path:
    """A configuration file as it stands, or the shipped one of that name.

    Raises:
        ConfigError: there is neither, or it is a lazy configuration, which is Python code.
    """
    file = Path(path).expanduser()
    if file.suffix == ".py":
        raise ConfigError(
            f"{file} is a lazy configuration: Python code, which would run when it is read. This "
            "package reads YAML files only, such as the shipped ones in configs/. In a program of "
            f"your own, detectron2.config.instantiate(LazyConfig.load({str(file)!r}).model) builds "
            "its model (docs/mask_rcnn.md, LazyConfig)."
        )
    if file.is_file():
        return file
    if file.is_absolute() or file.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"Configuration file not found: {file}")
    return Path(get_config_file(file.as_posix().removeprefix("configs/")))


def own_values(file: Path) -> tuple[dict[str, Any], list[Path]]:
    """What a YAML file says itself, and the files that its ``_BASE_`` names.

    A base lies beside the file, or is a shipped configuration by its name (``own/semantic.yaml``).

    Raises:
        ConfigError: the file is not readable, or holds something else than keys and values.
    """
    content = _parse(file)
    bases = content.pop("_BASE_", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(f"{file}: _BASE_ {bases!r} should be a file's name or a list of them")
    return content, [_base_of(file, Path(base).expanduser()) for base in bases]


def _base_of(file: Path, base: Path) -> Path:
    beside = file.parent / base
    shipped = config_root() / base.as_posix().removeprefix("configs/")
    return shipped if shipped.is_file() and not beside.is_file() else beside


def _parse(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}, line {mark.line + 1}" if mark else str(file)
        reason = getattr(error, "problem", None) or str(error)
        if isinstance(error, yaml.constructor.ConstructorError):
            reason += " (tags that create Python objects are refused: they can run code)"
        raise ConfigError(f"{where}: {reason}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not readable: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{file} should hold keys and values, as in SOLVER: {{MAX_ITER: 1000}}")
    return content


def read_yaml(file: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The values of a file over those of its bases, later bases over earlier ones.

    Args:
        file: a YAML file.
        above: the files that have this one as a base, resolved.

    Raises:
        ConfigError: as :func:`own_values`, of the file or a base of it, and bases in a circle.
    """
    if file.resolve() in above:
        raise ConfigError(f"{file} is a _BASE_ of itself")
    content, bases = own_values(file)
    merged: dict[str, Any] = {}
    for base in bases:
        try:
            _inherit(read_yaml(base, (*above, file.resolve())), merged, base)
        except ConfigError as error:
            raise ConfigError(f"{error} (_BASE_ of {file})") from None
    _inherit(content, merged, file)
    return merged


def _inherit(own: dict[str, Any], base: dict[str, Any], file: Path) -> None:
    """Write a file's own values over its base's, in place."""
    for key, value in own.items():
        if isinstance(value, dict) and key in base:
            if not isinstance(base[key], dict):
                raise ConfigError(
                    f"{file}: {key} has keys of its own here and is the value {base[key]!r} below"
                )
            _inherit(value, base[key], file)
        else:
            base[key] = value
