"""Objects that were found in overlapping windows, put together across the windows' borders.

Of a window only the part without its margin at inner borders counts: what is left of an object
there is a *fragment*, and it is *cut* if it reaches the border of that part. Where the parts of two
windows overlap lies their *strip*. Fragments of neighbouring windows are of one object if, in the
strip, they share at least half

- of their union, if both are whole,
- of the cut one, if the other is whole,
- of the smaller one, if both are cut.

Pairs of one class come first, then those of the largest intersection over union in the strip, and a
fragment takes one partner in a neighbour. Classes may differ where no partner of the same class is
left: half an object may look like something else. A cut fragment that is left over then belongs to
its best partner of the same class, taken or not: the prongs of a fork are several fragments until a
window sees its handle. One that has no partner at all is dropped: the neighbour sees more of it and
finds nothing there.

Of an object's fragments the whole one that lies farthest from a border is the object. If all are
cut it is their union; its class is that with the most score times area, its score the best of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from . import runs as mask_runs
from .windows import WindowGrid

# A share of pixels from which on two fragments are of one object.
_SAME = 0.5

# First row, first column, last row, last column (exclusive).
Box = tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class Found:
    """An object of a raster, or what a window saw of one.

    Attributes:
        class_id: its class.
        score: in [0, 1].
        runs: its pixels, as :mod:`.runs` has them.
        clearance: pixels from it to the border; 0 where it is cut.
    """

    class_id: int
    score: float
    runs: np.ndarray
    clearance: int = 0


@dataclass(eq=False)
class _Fragment:
    """What counts of an object in a window, and all that is known to belong together with it."""

    found: Found
    row: int
    box: Box
    group: list[_Fragment] = field(default_factory=list)

    @property
    def is_cut(self) -> bool:
        return self.found.clearance == 0

    def join(self, other: _Fragment) -> None:
        """Make one group of two."""
        if self.group is not other.group:
            self.group.extend(other.group)
            for fragment in other.group:
                fragment.group = self.group


class Seams:
    """Takes windows row by row, and gives objects as soon as no window can add to them.

    Args:
        grid: the windows.
        height: of the raster.
        width: of the raster.
    """

    def __init__(self, grid: WindowGrid, height: int, width: int) -> None:
        self.size = height, width
        self.rows = [_trusted(grid, span, height) for span in grid.spans(height)]
        self.columns = [_trusted(grid, span, width) for span in grid.spans(width)]
        self._windows: dict[tuple[int, int], list[_Fragment]] = {}
        self._open: list[_Fragment] = []
        #: Cut fragments without a partner, which were left out.
        self.dropped = 0

    def box(self, row: int, column: int) -> Box:
        """What counts of a window."""
        (y0, y1), (x0, x1) = self.rows[row], self.columns[column]
        return y0, x0, y1, x1

    def fragment(self, row: int, column: int, found: Found) -> Found | None:
        """What counts of an object that a window found; None where nothing does."""
        box = self.box(row, column)
        runs = mask_runs.cut(found.runs, box)
        if not len(runs):
            return None
        sides = zip(box, mask_runs.bounds(runs), (0, 0, *self.size), strict=True)
        distances = [abs(at - mine) for at, mine, outer in sides if at != outer]
        clearance = min(distances, default=max(self.size))
        return Found(found.class_id, found.score, runs, clearance)

    def add(self, row: int, column: int, found: list[Found]) -> None:
        """Take the objects of a window, in the raster's pixels."""
        new = []
        for part in (self.fragment(row, column, one) for one in found):
            if part:
                fragment = _Fragment(part, row, mask_runs.bounds(part.runs))
                fragment.group.append(fragment)
                new.append(fragment)
        for place in ((row, column - 1), *((row - 1, column + step) for step in (-1, 0, 1))):
            if place in self._windows:
                strip = _common(self.box(row, column), self.box(*place))
                _match(new, self._windows[place], strip)
        self._windows[row, column] = new
        self._open += new

    def finished(self, row: int) -> Iterator[Found]:
        """The objects that no window of a row, or of one below it, has a part of.

        Args:
            row: a row of windows of which all were added; the number of rows gives all that is
                left.
        """
        groups = {id(fragment.group): fragment.group for fragment in self._open}
        for group in groups.values():
            if all(fragment.row < row for fragment in group):
                if len(group) > 1 or not group[0].is_cut:
                    yield _object([fragment.found for fragment in group])
                else:
                    self.dropped += 1
                for fragment in group:
                    fragment.row = -1
        self._open = [fragment for fragment in self._open if fragment.row >= 0]
        self._windows = {place: one for place, one in self._windows.items() if place[0] >= row}


def _match(new: list[_Fragment], old: list[_Fragment], strip: Box) -> None:
    """Join the fragments of two windows that are of one object."""
    pairs = []
    inside = [
        [(f, mask_runs.cut(f.found.runs, strip)) for f in one if _is_box(_common(f.box, strip))]
        for one in (new, old)
    ]
    for one, one_runs in inside[0]:
        for two, two_runs in inside[1]:
            if _is_box(_common(one.box, two.box)):
                iou, share = _overlap(one, two, one_runs, two_runs)
                if share >= _SAME:
                    pairs.append((one.found.class_id == two.found.class_id, iou, one, two))
    pairs.sort(key=lambda pair: pair[:2], reverse=True)
    taken: set[int] = set()
    for _, _, one, two in pairs:
        if not taken & {id(one), id(two)}:
            taken |= {id(one), id(two)}
            one.join(two)
    for is_alike, _, one, two in pairs:
        for part, other in ((one, two), (two, one)):
            if is_alike and part.is_cut and id(part) not in taken:
                taken.add(id(part))
                part.join(other)


def _trusted(grid: WindowGrid, span: tuple[int, int], length: int) -> tuple[int, int]:
    """A window's side without the margins inside the image."""
    start, end = span
    return start + grid.margin * (start > 0), end - grid.margin * (end < length)


def _common(one: Box, two: Box) -> Box:
    return max(one[0], two[0]), max(one[1], two[1]), min(one[2], two[2]), min(one[3], two[3])


def _is_box(box: Box) -> bool:
    return box[0] < box[2] and box[1] < box[3]


def _overlap(
    one: _Fragment, two: _Fragment, first: np.ndarray, second: np.ndarray
) -> tuple[float, float]:
    """Intersection over union of two fragments by their runs in the strip, and the share."""
    shared = mask_runs.overlap(first, second)
    if not shared:
        return 0.0, 0.0
    areas = mask_runs.area(first), mask_runs.area(second)
    iou = shared / (sum(areas) - shared)
    if one.is_cut and two.is_cut:
        return iou, shared / min(areas)
    if one.is_cut or two.is_cut:
        return iou, shared / areas[0 if one.is_cut else 1]
    return iou, iou


def _object(fragments: list[Found]) -> Found:
    """The object of its fragments."""
    best = max(fragments, key=lambda f: (f.clearance, f.score))
    if best.clearance or len(fragments) == 1:
        return best
    votes: dict[int, float] = {}
    for one in fragments:
        votes[one.class_id] = votes.get(one.class_id, 0.0) + one.score * mask_runs.area(one.runs)
    class_id = max(votes, key=votes.__getitem__)
    score = max(one.score for one in fragments if one.class_id == class_id)
    return Found(class_id, score, mask_runs.union([one.runs for one in fragments]))
