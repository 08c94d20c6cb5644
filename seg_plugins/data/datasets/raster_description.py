"""The keys of a description (``DATASETS.CUSTOM``) that has rasters: read and checked."""

from __future__ import annotations

from typing import Any

from ..errors import DatasetError
from .layouts import Layout
from .raster_split import RasterSplit
from .rasters import RasterFiles, Rasters

__all__ = ["RASTER_KEYS", "raster_layouts"]

#: The keys that make a description one of rasters.
RASTER_KEYS = frozenset({"rasters", "windows", "outside", "class_property"})
_OTHERS = ("images", "masks", "image_suffix", "mask_suffix", "format", "train")
_SHARES = ("val_columns", "val_rows")
# Smaller windows hold next to no context, larger ones do not fit beside each other in a batch.
_SMALLEST, _LARGEST = 16, 8192


def raster_layouts(content: dict[str, Any], task: str) -> dict[str, Layout]:
    """The layouts of the splits.

    Args:
        content: the description.
        task: of it.

    Raises:
        DatasetError: a missing key, one that does not belong to rasters, or a wrong value.
    """
    if task != "semantic":
        raise DatasetError(f"rasters are trained on with task semantic, not {task}")
    if "rasters" not in content:  # so that labels would mean something else
        given = sorted(RASTER_KEYS.intersection(content))
        raise DatasetError(f"{given[0]} belongs to rasters, which are missing")
    wrong = [key for key in _OTHERS if key in content]
    if wrong:
        raise DatasetError(f"{wrong[0]} does not belong to rasters")
    size, balanced = _windows(content.get("windows", {}))
    shared: dict[str, Any] = {
        "window": size,
        "outside": _text(content, "outside", ""),
        "class_property": _text(content, "class_property", "class"),
    }
    files = _files(content, "")
    if "val" not in content:
        split = _split(content.get("split", {"val_columns": 0.2}))
        layouts: dict[str, Layout] = {
            "train": Rasters(files, split, False, class_balanced=balanced, **shared)
        }
        if split is not None:
            layouts["val"] = Rasters(files, split, True, **shared)
        return layouts
    if "split" in content:
        raise DatasetError("give val, with rasters of its own, or split, not both")
    val = content["val"]
    if not isinstance(val, dict) or set(val) != {"rasters", "labels"}:
        raise DatasetError("val should have rasters and labels")
    return {
        "train": Rasters(files, None, False, class_balanced=balanced, **shared),
        "val": Rasters(_files(val, "val."), None, True, **shared),
    }


def _files(content: dict[str, Any], where: str) -> RasterFiles:
    return RasterFiles(*(_names(content, key, where) for key in ("rasters", "labels")))


def _names(content: dict[str, Any], key: str, where: str) -> tuple[str, ...]:
    given = content.get(key)
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list) or not names or not all(isinstance(n, str) and n for n in names):
        raise DatasetError(f"{where}{key} should be a file, a pattern or a list of them")
    names = [name.replace("\\", "/") for name in names]
    for name in names:
        if name.count("*") > 1 or "*" in name.rpartition("/")[0]:
            raise DatasetError(
                f"{where}{key}: {name!r}: a pattern has one * in the name of the file"
            )
    return tuple(names)


def _windows(given: Any) -> tuple[int, bool]:
    """The longest side of a window, and whether windows are balanced by class."""
    if not isinstance(given, dict):
        raise DatasetError(f"windows should have size and class_balanced, not {given!r}")
    _check_keys(given, ("size", "class_balanced"), "windows")
    size, balanced = given.get("size", 512), given.get("class_balanced", False)
    if type(size) is not int or not _SMALLEST <= size <= _LARGEST:
        raise DatasetError(
            f"windows.size is {size!r}; it should be an integer in {_SMALLEST}..{_LARGEST}"
        )
    if type(balanced) is not bool:
        raise DatasetError(f"windows.class_balanced is {balanced!r}; it should be true or false")
    return size, balanced


def _split(given: Any) -> RasterSplit | None:
    """How rasters are parted; None: they are not, and nothing validates."""
    known = (*_SHARES, "val_rectangle")
    if not isinstance(given, dict) or len(given) != 1:
        raise DatasetError(f"split should have one of {', '.join(known)}, not {given!r}")
    _check_keys(given, known, "split")
    ((key, value),) = given.items()
    if key in _SHARES:
        if type(value) not in (int, float) or not 0 <= value < 1:
            raise DatasetError(f"split.{key} is {value!r}; it should be in [0, 1)")
        shares: dict[str, Any] = {key: float(value)}
        return RasterSplit(**shares) if value else None
    numbers = isinstance(value, list) and len(value) == 4 and all(type(v) is int for v in value)
    if not numbers or min(value) < 0 or min(value[2:]) < 1:
        raise DatasetError(
            f"split.val_rectangle is {value!r}; it should be [x, y, width, height] in pixels"
        )
    return RasterSplit(val_rectangle=tuple(value))


def _check_keys(given: dict[str, Any], known: tuple[str, ...], where: str) -> None:
    unknown = sorted(set(map(str, given)) - set(known))
    if unknown:
        raise DatasetError(f"{where}: unknown key '{unknown[0]}'; known are {', '.join(known)}")


def _text(content: dict[str, Any], key: str, default: str) -> str:
    value = content.get(key, default)
    if not isinstance(value, str):
        raise DatasetError(f"{key} is {value!r}; it should be text")
    return value
