"""How class ids are stored in a label image, and reading them unchanged."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .errors import DatasetError
from .images import read_label

__all__ = ["LabelEncoding", "UnlistedError"]

_SHOWN = 5
# The greys that the first colours of Pascal VOC's palette become in a conversion to "L".
_PALETTE_GREYS = {0, 14, 15, 19, 33, 34, 38, 52, 53, 57, 71, 72, 75, 89, 90, 94, 108, 109, 113, 128,
                  132, 147, 151}  # fmt: skip


class UnlistedError(DatasetError):
    """A label holds values or colours that stand for no class."""


@dataclass(frozen=True)
class LabelEncoding:
    """The stored values of a label image and the class ids they stand for.

    Called with a file name, it gives the class ids of the file. With no `values` and no `colors`
    the stored values are the ids already. What is not listed is an error; the value
    `ignore_label` is listed always, unless it stands for a class.

    Attributes:
        values: (stored value, class id) pairs, values >= 0.
        colors: (R, G, B) -> class id, for label images that hold colours.
        ignore_label: the id of pixels that belong to no class.
        classes: number of classes where the stored values are the ids; 0 checks nothing.
        ignore_unlisted: every other value or colour becomes `ignore_label`.
    """

    values: tuple[tuple[int, int], ...] = ()
    colors: tuple[tuple[tuple[int, int, int], int], ...] = ()
    ignore_label: int = 255
    classes: int = 0
    ignore_unlisted: bool = False

    def __call__(self, file_name: str) -> np.ndarray:
        """Read a label image.

        Returns:
            (H, W) class ids, in the narrowest unsigned type that the file gives.

        Raises:
            UnlistedError: a value or colour that stands for no class.
            DatasetError: the file cannot be read.
        """
        label = read_label(file_name, color=bool(self.colors))
        try:
            return self.decode(label)
        except UnlistedError as error:
            raise UnlistedError(f"{file_name}: {error}") from None

    def decode(self, label: np.ndarray) -> np.ndarray:
        """Turn stored values, (H, W), or colours, (H, W, 3), into class ids.

        Raises:
            UnlistedError: a value or colour that stands for no class.
        """
        if self.colors:
            code = label.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)
            keys, ids = _color_table(self.colors, self.ignore_label)
            place = np.minimum(np.searchsorted(keys, code), len(keys) - 1)
            return self._checked(ids[place], keys[place] == code, code)
        if self.values:
            lut, known_values = _value_table(self.values, self.ignore_label)
            clipped = label
            if label.dtype != np.uint8:
                wide = label.astype(np.int64)
                clipped = np.where((wide < 0) | (wide >= len(lut)), len(lut) - 1, wide)
            return self._checked(lut[clipped], known_values[clipped], label)
        if not self.classes:
            return label
        known = (label < self.classes) | (label == self.ignore_label)
        if label.dtype.kind == "i":
            known &= label >= 0
        return self._checked(label, known, label)

    def _checked(self, ids: np.ndarray, known: np.ndarray, stored: np.ndarray) -> np.ndarray:
        if known.all():
            return ids
        if not self.ignore_unlisted:
            raise UnlistedError(self._explained(stored, known))
        narrow = np.uint8 if max(self.ignore_label, int(ids[known].max(initial=0))) < 256 else None
        ids = ids.astype(narrow or np.uint16)
        return np.where(known, ids, np.array(self.ignore_label, ids.dtype))

    def _explained(self, stored: np.ndarray, known: np.ndarray) -> str:
        """What is not listed, with the number of pixels, the most frequent first."""
        found, counts = np.unique(stored[~known], return_counts=True)
        order = np.argsort(-counts, kind="stable")
        shown = ", ".join(
            f"{self._name(int(found[i]))} ({counts[i]} pixels)" for i in order[:_SHOWN]
        )
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        what = ("colour" if self.colors else "value") + "s" * (len(found) > 1)
        classes = self.classes or len({i for _, i in self.values or self.colors})
        return (
            f"the {what} {shown}{more} stand{'s' * (len(found) == 1)} for none of the {classes} "
            f"classes nor the ignore label {self.ignore_label}; {self._fix(stored, classes)}"
        )

    def _name(self, value: int) -> str:
        if not self.colors:
            return str(value)
        return f"[{value >> 16}, {value >> 8 & 255}, {value & 255}]"

    def _fix(self, stored: np.ndarray, classes: int) -> str:
        """The keys that help, as far as the values tell."""
        key = "color" if self.colors else "value"
        fix = (
            f"in a description (DATASETS.CUSTOM) give the {key} of its class, or say 'unlisted: "
            "ignore' to leave such pixels out"
        )
        if self.colors:
            return fix
        values = set(np.unique(stored).tolist())
        if values <= {0, 255} and classes == 2:
            return (
                "it looks like a 0/255 mask: give the classes 'value: 0' and 'value: 255' in a "
                "description (DATASETS.CUSTOM)"
            )
        if len(values) > 2 and values <= _PALETTE_GREYS | {self.ignore_label, 220, 224}:
            fix = (
                "these are the greys of a palette: if the masks were converted from palette images "
                f"to grey, take the palette images themselves, whose indices are the ids; or {fix}"
            )
        return fix


@lru_cache(maxsize=64)
def _value_table(
    values: tuple[tuple[int, int], ...], ignore_label: int
) -> tuple[np.ndarray, np.ndarray]:
    """A lookup table for 8 bits at least; its last entry stands for all values beyond it."""
    size = max(max(value for value, _ in values) + 2, ignore_label + 2, 257)
    largest = max([ignore_label, *(class_id for _, class_id in values)])
    lut = np.full(size, ignore_label, np.uint8 if largest < 256 else np.uint16)
    known = np.zeros(size, bool)
    known[ignore_label] = True
    for value, class_id in values:
        lut[value], known[value] = class_id, True
    return lut, known


@lru_cache(maxsize=64)
def _color_table(
    colors: tuple[tuple[tuple[int, int, int], int], ...], ignore_label: int
) -> tuple[np.ndarray, np.ndarray]:
    """Sorted 24-bit colours and their ids."""
    pairs = sorted(((r << 16) | (g << 8) | b, class_id) for (r, g, b), class_id in colors)
    keys = np.array([key for key, _ in pairs], np.uint32)
    largest = max([ignore_label, *(class_id for _, class_id in pairs)])
    return keys, np.array([i for _, i in pairs], np.uint8 if largest < 256 else np.uint16)
