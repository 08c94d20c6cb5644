"""Reading lists and JSON files that others wrote."""

from __future__ import annotations

import codecs
import json
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from ..errors import DatasetError

__all__ = ["inside", "missing", "parse_json", "read_json", "read_lines"]


def inside(name: str) -> str:
    """`name` with forward slashes, if it stays below the folder it is relative to.

    Raises:
        DatasetError: an absolute path, one with ``..``, or an empty one.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    try:
        too_long = any(len(part.encode()) > 255 for part in path.parts)
    except UnicodeEncodeError:  # a lone surrogate, which JSON can hold and a disk cannot
        too_long = True
    if not path.parts or "\0" in name or too_long:
        raise DatasetError(f"{name[:80]!r} is no file name")
    if path.is_absolute() or ".." in path.parts or PureWindowsPath(name).drive:
        raise DatasetError(f"the path {name!r} leaves the dataset's folder")
    return path.as_posix()


def read_lines(path: Path) -> list[str]:
    """The lines of a list file that are not blank.

    Raises:
        DatasetError: the file is missing or no text.
    """
    try:
        content = path.read_bytes()
        # Windows editors begin with a byte order mark, in two encodings.
        wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        lines = content.decode("utf-16" if wide else "utf-8-sig").splitlines()
    except FileNotFoundError:
        raise missing(path) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: not a readable list ({error}); save it as UTF-8") from None
    return [line.strip() for line in lines if line.strip()]


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        DatasetError: the file is missing, not JSON, or holds something else than an object.
    """
    try:
        content = parse_json(path)
    except FileNotFoundError:
        raise missing(path) from None
    if not isinstance(content, dict):
        raise DatasetError(f"{path}: expected an object, found a {type(content).__name__}")
    return content


def parse_json(path: Path) -> Any:
    """Whatever a JSON file holds.

    Raises:
        FileNotFoundError: it is missing; what to say of that depends on the kind of file.
        DatasetError: the file is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: not readable as JSON ({error})") from None


def missing(path: Path, what: str = "no such file") -> DatasetError:
    """The error for what is not there, to be raised; it tells where datasets are looked for."""
    return DatasetError(
        f"{path}: {what}. Datasets are looked for below DETECTRON2_DATASETS (default "
        "'datasets'); datasets/README.md shows the expected tree."
    )
