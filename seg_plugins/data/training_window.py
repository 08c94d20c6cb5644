"""Windows of a raster that training draws: anywhere in the area that trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..io.window_names import Area, file_of, window_name

__all__ = ["TrainingWindow", "draw_window"]


@dataclass(frozen=True)
class TrainingWindow:
    """Where the windows of one record may lie; in a record as ``training_window``.

    Each record stands for a tile of the area that trains, so that an epoch visits all of it. The
    window that is drawn for it may reach over the tile's edges, but not over the area's.

    Attributes:
        area: what trains.
        tile: the record's part of it.
        size: longest side of a window, in pixels.
        class_balanced: the window holds a pixel of a class that is drawn.
        class_chances: (classes,) of each class where the tile shows it, in any scale; empty until
            the tiles' classes are counted.
    """

    area: Area
    tile: Area
    size: int
    class_balanced: bool = False
    class_chances: tuple[float, ...] = ()

    def draw(self, rng: np.random.Generator, label: Callable[[], np.ndarray]) -> Area:
        """A window inside the area.

        Args:
            rng: whose numbers alone decide.
            label: gives the tile's (height, width) class ids; called if `class_chances` are known.
        """
        width, height = min(self.size, self.area.width), min(self.size, self.area.height)
        if self.class_chances:
            x, y = self._pixel_of_class(rng, label())
            # Every place that holds the pixel is as likely.
            x, y = x - int(rng.integers(width)), y - int(rng.integers(height))
        else:
            # The window's centre is a random point of the tile.
            x = self.tile.x + int(rng.integers(self.tile.width)) - width // 2
            y = self.tile.y + int(rng.integers(self.tile.height)) - height // 2
        x = min(max(x, self.area.x), self.area.columns[1] - width)
        y = min(max(y, self.area.y), self.area.rows[1] - height)
        return Area(x, y, width, height)

    def _pixel_of_class(self, rng: np.random.Generator, label: np.ndarray) -> tuple[int, int]:
        chances = np.asarray(self.class_chances)
        shown = np.unique(label)
        shown = shown[shown < len(chances)]
        if not len(shown):  # by no record that is drawn at all
            return self.tile.x, self.tile.y
        share = chances[shown] / chances[shown].sum()
        rows, columns = np.nonzero(label == rng.choice(shown, p=share))
        place = int(rng.integers(len(rows)))
        return self.tile.x + int(columns[place]), self.tile.y + int(rows[place])


def draw_window(record: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """The record of a window that is drawn in the place of the record's tile.

    Args:
        record: a dict with ``training_window``, ``sem_seg_file_name`` and ``sem_seg_encoding``.
        rng: see :class:`TrainingWindow`.
    """
    drawn = dict(record)
    training: TrainingWindow = drawn.pop("training_window")
    label_name = drawn["sem_seg_file_name"]
    area = training.draw(rng, lambda: drawn["sem_seg_encoding"](label_name))
    for key in ("file_name", "sem_seg_file_name"):
        drawn[key] = window_name(file_of(drawn[key]), area)
    return drawn | {"height": area.height, "width": area.width}
