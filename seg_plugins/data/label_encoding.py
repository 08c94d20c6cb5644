"""How class ids are stored in a label image, and reading them unchanged."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .errors import DatasetError
from .image_io import read_label

__all__ = ["LabelEncoding"]


@dataclass(frozen=True)
class LabelEncoding:
    """The stored values of a label image and the class ids they stand for.

    Called with a file name, it gives the class ids of the file. With no `values` and no `colours`
    the stored values are the ids already.

    Attributes:
        values: (stored value, class id) pairs, values >= 0; every other value becomes
            `ignore_label` or, with `strict`, an error.
        colours: (R, G, B) -> class id, for label images that hold colours.
        ignore_label: the id of pixels that belong to no class.
        strict: refuse values and colours that are not listed.
    """

    values: tuple[tuple[int, int], ...] = ()
    colours: tuple[tuple[tuple[int, int, int], int], ...] = ()
    ignore_label: int = 255
    strict: bool = False

    def __call__(self, file_name: str) -> np.ndarray:
        """Read a label image.

        Returns:
            (H, W) class ids, in the narrowest unsigned type that the file gives.

        Raises:
            DatasetError: the file cannot be read, or holds what the encoding does not know.
        """
        label = read_label(file_name, colour=bool(self.colours))
        try:
            return self.decode(label)
        except DatasetError as error:
            raise DatasetError(f"{file_name}: {error}") from None

    def decode(self, label: np.ndarray) -> np.ndarray:
        """Turn stored values, (H, W), or colours, (H, W, 3), into class ids."""
        if self.colours:
            code = label.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)
            keys, ids = _colour_table(self.colours)
            place = np.minimum(np.searchsorted(keys, code), len(keys) - 1)
            return self._checked(ids[place], keys[place] == code, code)
        if not self.values:
            return label
        lut, known_values = _value_table(self.values, self.ignore_label)
        clipped = label
        if label.dtype != np.uint8:
            wide = label.astype(np.int64)
            clipped = np.where((wide < 0) | (wide >= len(lut)), len(lut) - 1, wide)
        return self._checked(lut[clipped], known_values[clipped], label)

    def _checked(self, ids: np.ndarray, known: np.ndarray, stored: np.ndarray) -> np.ndarray:
        if known.all():
            return ids
        if self.strict:
            value = int(stored[~known][0])
            shown = f"colour #{value:06x}" if self.colours else f"value {value}"
            raise DatasetError(f"{shown} stands for no class ({int((~known).sum())} pixels)")
        return np.where(known, ids, np.array(self.ignore_label, ids.dtype))


@lru_cache(maxsize=64)
def _value_table(
    values: tuple[tuple[int, int], ...], ignore_label: int
) -> tuple[np.ndarray, np.ndarray]:
    """A lookup table for 8 bits at least; its last entry stands for all values beyond it."""
    size = max(max(value for value, _ in values) + 2, 257)
    largest = max([ignore_label, *(class_id for _, class_id in values)])
    lut = np.full(size, ignore_label, np.uint8 if largest < 256 else np.uint16)
    known = np.zeros(size, bool)
    for value, class_id in values:
        lut[value], known[value] = class_id, True
    return lut, known


@lru_cache(maxsize=64)
def _colour_table(
    colours: tuple[tuple[tuple[int, int, int], int], ...],
) -> tuple[np.ndarray, np.ndarray]:
    """Sorted 24-bit colours and their ids."""
    pairs = sorted(((r << 16) | (g << 8) | b, class_id) for (r, g, b), class_id in colours)
    keys = np.array([key for key, _ in pairs], np.uint32)
    largest = max(class_id for _, class_id in pairs)
    return keys, np.array([i for _, i in pairs], np.uint8 if largest < 255 else np.uint16)
