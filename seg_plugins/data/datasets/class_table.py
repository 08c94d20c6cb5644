"""Class tables: ids, names and colours, one JSON file per dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from ...io.label_encoding import LabelEncoding
from ..errors import DatasetError
from .files import read_json

__all__ = ["ClassTable", "DatasetClass", "load_class_table"]

_FOLDER = Path(__file__).parent / "class_tables"
_COLOR_OF_THINGS = (200, 120, 60)
_MAX_LABEL_VALUE = (1 << 16) - 1


@dataclass(frozen=True)
class DatasetClass:
    """One class of a dataset.

    Attributes:
        name: as published.
        color: (R, G, B), as published where there is an official colour.
        is_thing: countable; False for stuff and for classes of a purely semantic dataset.
        category_id: id in the annotation JSON, where there is one.
        label_values: values in label images, where these do not hold the contiguous ids.
    """

    name: str
    color: tuple[int, int, int]
    is_thing: bool = False
    category_id: int | None = None
    label_values: tuple[int, ...] = ()


@dataclass(frozen=True)
class ClassTable:
    """The classes of a dataset; a class's place in the list is its contiguous id.

    Attributes:
        classes: in the order of their ids.
        ignore_label: the id of pixels without a class.
        source: where ids, names and colours are published.
        verified: whether they were compared with that source.
        published_weights: loss weights released with the dataset, by class id.
        ignore_unlisted: values and colours of label images that stand for no class are left out;
            otherwise they are errors.
    """

    classes: tuple[DatasetClass, ...]
    ignore_label: int = 255
    source: str = ""
    verified: bool = False
    published_weights: tuple[float, ...] = ()
    ignore_unlisted: bool = False

    @classmethod
    def of_names(cls, names: Sequence[str], *, things: bool = True) -> ClassTable:
        """A table of names alone, all of them things or none."""
        colors = spread_colors(len(names))
        return cls(tuple(map(DatasetClass, names, colors, [things] * len(names))))

    @property
    def names(self) -> list[str]:
        """The class names by id."""
        return [c.name for c in self.classes]

    @property
    def colors(self) -> list[list[int]]:
        """The class colours by id, RGB."""
        return [list(c.color) for c in self.classes]

    @property
    def things(self) -> ClassTable:
        """The things alone, numbered anew from 0."""
        things = tuple(c for c in self.classes if c.is_thing)
        return ClassTable(things, self.ignore_label, self.source, self.verified)

    def category_map(self) -> dict[int, int]:
        """Category id of the annotation JSON -> contiguous id."""
        return {c.category_id: i for i, c in enumerate(self.classes) if c.category_id is not None}

    def things_as_one(self) -> ClassTable:
        """All things as class 0, then the stuff, as in Detectron2's "separated" panoptic form.

        The label values are this table's ids.
        """
        things = tuple(i for i, c in enumerate(self.classes) if c.is_thing)
        stuff = tuple(
            replace(c, label_values=(i,)) for i, c in enumerate(self.classes) if not c.is_thing
        )
        one = DatasetClass("things", _COLOR_OF_THINGS, label_values=things)
        return replace(self, classes=(one, *stuff), published_weights=())

    def encoding(self, *, colors: bool = False) -> LabelEncoding:
        """How label images store the classes.

        Args:
            colors: they hold the classes' colours.
        """
        pairs = tuple((c.color, i) for i, c in enumerate(self.classes)) if colors else ()
        _check_once("colour", [color for color, _ in pairs])
        known = tuple((v, i) for i, c in enumerate(self.classes) for v in c.label_values)
        _check_once("value", [value for value, _ in known])
        return LabelEncoding(
            () if colors else known,
            pairs,
            self.ignore_label,
            classes=len(self.classes),
            ignore_unlisted=self.ignore_unlisted,
        )


def spread_colors(count: int) -> list[tuple[int, int, int]]:
    """Distinct colours for classes without official ones: the colour map of Pascal VOC."""
    colors = []
    for number in range(1, count + 1):
        rgb = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                rgb[channel] |= (number >> (3 * bit + channel) & 1) << (7 - bit)
        colors.append((rgb[0], rgb[1], rgb[2]))
    return colors


def parse_class_table(content: dict[str, Any], name: str) -> ClassTable:
    """Build a table from the content of its file.

    Raises:
        DatasetError: ids that are not 0, 1, 2, ...; a missing name; a colour that is none.
    """
    entries: Sequence[dict[str, Any]] = content["classes"]
    fallback = spread_colors(len(entries))
    classes = []
    for index, entry in enumerate(entries):
        if entry.get("id", index) != index:
            raise DatasetError(f"{name}: class {index} has the id {entry['id']}; ids count from 0")
        color = tuple(entry.get("color") or fallback[index])
        if len(color) != 3 or not all(isinstance(v, int) and 0 <= v <= 255 for v in color):
            raise DatasetError(f"{name}: class {index}: color must be three integers in 0..255")
        classes.append(
            DatasetClass(
                str(entry["name"]),
                color,
                bool(entry.get("isthing", 0)),
                entry.get("category_id"),
                _label_values(entry.get("label_value"), f"{name}: class {index}"),
            )
        )
    return ClassTable(
        tuple(classes),
        content.get("ignore_label", 255),
        content.get("source", ""),
        content.get("verified", False),
        tuple(content.get("published_weights", ())),
        content.get("unlisted", "error") == "ignore",
    )


def _label_values(given: Any, where: str) -> tuple[int, ...]:
    """None, one value or several."""
    values = () if given is None else tuple(given) if isinstance(given, list) else (given,)
    if not all(type(v) is int and 0 <= v <= _MAX_LABEL_VALUE for v in values):
        raise DatasetError(f"{where}: value {given!r} is no integer in 0..{_MAX_LABEL_VALUE}")
    return values


def _check_once(what: str, given: Sequence[Any]) -> None:
    twice = next((v for i, v in enumerate(given) if v in given[:i]), None)
    if twice is not None:
        raise DatasetError(f"classes: the {what} {twice} stands for two of them")


@cache
def load_class_table(name: str) -> ClassTable:
    """Read a shipped class table, e.g. ``camvid``.

    Raises:
        DatasetError: there is no such table.
    """
    path = _FOLDER / f"{name}.json"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in _FOLDER.glob("*.json")))
        raise DatasetError(f"no class table '{name}'; there are: {known}")
    return parse_class_table(read_json(path), str(path))
