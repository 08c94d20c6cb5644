"""Names of windows of rasters: a file and an area of it, in one text.

``a.tif#xywh=512,0,256,256`` is the window of 256 x 256 pixels whose first pixel is in column 512
and row 0. The form is W3C's (Media Fragments URI 1.0, spatial dimension). A window has a name of
its own wherever an image has one: in records, in results, in messages.
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["Area", "file_of", "split_name", "window_name"]

_NAME = re.compile(r"(?P<file>.+)#xywh=(?P<x>\d+),(?P<y>\d+),(?P<width>\d+),(?P<height>\d+)")


class Area(NamedTuple):
    """A rectangle of pixels.

    Attributes:
        x: column of the first pixel.
        y: its row.
        width: columns.
        height: rows.
    """

    x: int
    y: int
    width: int
    height: int

    @property
    def rows(self) -> tuple[int, int]:
        """The first row and the one after the last."""
        return self.y, self.y + self.height

    @property
    def columns(self) -> tuple[int, int]:
        """The first column and the one after the last."""
        return self.x, self.x + self.width

    def shared(self, other: Area) -> int:
        """The number of pixels in both."""
        height = min(self.rows[1], other.rows[1]) - max(self.y, other.y)
        width = min(self.columns[1], other.columns[1]) - max(self.x, other.x)
        return max(height, 0) * max(width, 0)


def window_name(file_name: str, area: Area) -> str:
    """The name of a window of a file."""
    return f"{file_name}#xywh={area.x},{area.y},{area.width},{area.height}"


def split_name(name: str) -> tuple[str, Area | None]:
    """The file that a name is of, and the area; None where it names the whole file."""
    found = _NAME.fullmatch(name) if "#xywh=" in name else None
    if found is None:
        return name, None
    return found["file"], Area(*(int(found[key]) for key in ("x", "y", "width", "height")))


def file_of(name: str) -> str:
    """The file that a name is of."""
    return split_name(name)[0]
