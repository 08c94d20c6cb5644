"""What waits on disk while a raster is predicted, so that memory does not grow with it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from . import runs as mask_runs
from .seams import Box, Found


class ObjectSpool:
    """Objects of a raster: their masks in a temporary file, the rest at hand.

    Args:
        folder: of the temporary file.
    """

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by close()
        self._objects: list[tuple[float, int, int, int]] = []
        self._boxes: list[Box] = []
        self._sides = np.zeros((0, 4), np.int64)  # the boxes, once they are sorted

    def __enter__(self) -> ObjectSpool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, found: Found) -> None:
        """Keep an object."""
        place = self._file.seek(0, 2)
        found.runs.astype("<i4").tofile(self._file)
        self._objects.append((found.score, found.class_id, place, len(found.runs)))
        self._boxes.append(mask_runs.bounds(found.runs))

    def sort(self) -> None:
        """Bring the objects into the order of falling scores; equal ones from the top down."""
        order = sorted(range(len(self)), key=lambda i: (-self._objects[i][0], self._boxes[i]))
        self._objects = [self._objects[i] for i in order]
        self._boxes = [self._boxes[i] for i in order]
        self._sides = np.array(self._boxes, np.int64).reshape(-1, 4)

    def __len__(self) -> int:
        return len(self._objects)

    @property
    def class_ids(self) -> list[int]:
        """The class of each object."""
        return [class_id for _, class_id, _, _ in self._objects]

    def __iter__(self) -> Iterator[Found]:
        """The objects in order."""
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Found:
        score, class_id, place, count = self._objects[index]
        self._file.seek(place)
        runs = np.fromfile(self._file, "<i4", 3 * count).reshape(-1, 3).astype(np.int64)
        return Found(class_id, score, runs)

    def labels(self, box: Box) -> np.ndarray:
        """(h, w) uint32 numbers of the sorted objects in rows and columns of the raster.

        They count from 1 in the order of the objects, the first lies on top; 0 is none.
        """
        y0, x0, y1, x1 = box
        found = np.zeros((y1 - y0, x1 - x0), np.uint32)
        boxes = self._sides
        inside = (boxes[:, 0] < y1) & (boxes[:, 2] > y0) & (boxes[:, 1] < x1) & (boxes[:, 3] > x0)
        for index in np.nonzero(inside)[0][::-1].tolist():
            mask_runs.paint(found, self[index].runs, y0, x0, index + 1)
        return found

    def close(self) -> None:
        """Remove the temporary file."""
        self._file.close()


class MapSpool:
    """An (height, width) map of small numbers in a temporary file.

    Args:
        folder: of the temporary file.
        height: of the map.
        width: of the map.
        dtype: of its numbers.
    """

    def __init__(self, folder: Path, height: int, width: int, dtype: Any) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by close()
        self.width, self.dtype = width, np.dtype(dtype)
        self._file.truncate(height * width * self.dtype.itemsize)

    def __enter__(self) -> MapSpool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, values: np.ndarray, y: int, x: int) -> None:
        """Store an (h, w) part that begins at row `y` and column `x`."""
        for row, line in enumerate(values.astype(self.dtype)):
            self._seek(y + row, x)
            line.tofile(self._file)

    def read(self, box: Box) -> np.ndarray:
        """The part in rows and columns of the map."""
        y0, x0, y1, x1 = box
        found = np.empty((y1 - y0, x1 - x0), self.dtype)
        for row in range(y0, y1):
            self._seek(row, x0)
            found[row - y0] = np.fromfile(self._file, self.dtype, x1 - x0)
        return found

    def _seek(self, row: int, column: int) -> None:
        self._file.seek((row * self.width + column) * self.dtype.itemsize)

    def close(self) -> None:
        """Remove the temporary file."""
        self._file.close()
