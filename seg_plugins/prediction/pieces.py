"""The connected pieces of the classes of a map of any size, found strip by strip."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from . import runs as mask_runs
from .labels import BACKGROUND, Labels
from .seams import Found
from .spool import MapSpool

# Rows that are looked at together.
_ROWS = 64


class _Piece:
    """What the strips so far hold of a piece."""

    def __init__(self, class_id: int, runs: np.ndarray) -> None:
        self.class_id, self.runs = class_id, [runs]
        self._joined: _Piece | None = None

    @property
    def whole(self) -> _Piece:
        """The piece that this one turned out to be a part of."""
        piece = self
        while piece._joined is not None:
            piece = piece._joined
        if piece is not self:
            self._joined = piece
        return piece

    def join(self, other: _Piece) -> None:
        """Make one piece of two."""
        one, two = self.whole, other.whole
        if one is not two:
            two._joined = one
            one.runs += two.runs
            two.runs = []


def find_pieces(classes: MapSpool, height: int, width: int, labels: Labels) -> Iterator[Found]:
    """The pieces of each class, as :func:`.objects.object_regions` finds them in a small image.

    Pieces are connected over corners as well; those of a class that is called background are none.
    Memory is that of a strip and of the pieces that reach its last row.

    Args:
        classes: the (height, width) map of class ids.
        height: of the map.
        width: of the map.
        labels: what the ids mean.

    Yields:
        A piece as soon as no later row can belong to it, with the score 1.
    """
    counted = [k for k, label in enumerate(labels.stuff) if label.name.lower() not in BACKGROUND]
    above, over = np.zeros(width, np.int64), np.zeros(width, np.int64)
    open_pieces: list[_Piece] = []
    for y in range(0, height, _ROWS):
        strip = classes.read((y, 0, min(y + _ROWS, height), width))
        numbers, kinds = _numbered(strip, counted)
        new = [
            _Piece(kind, part)
            for kind, part in zip(kinds.tolist(), _runs(numbers, len(kinds), y), strict=True)
        ]
        of_class = np.r_[-1, kinds]
        for mine, theirs in _touching(numbers[0], of_class[numbers[0]], above, over):
            open_pieces[theirs - 1].join(new[mine - 1])
        last = numbers[-1]
        still = {id(new[number - 1].whole) for number in np.unique(last[last > 0]).tolist()}
        wholes = {id(piece.whole): piece.whole for piece in (*open_pieces, *new)}
        for key, piece in wholes.items():
            if key not in still:
                yield _found(piece)
        # In the order of `wholes`: that of a set of addresses is another one in each run.
        open_pieces = [piece for key, piece in wholes.items() if key in still]
        above, over = _renumbered(last, new, open_pieces)
    for piece in open_pieces:
        yield _found(piece)


def _numbered(strip: np.ndarray, counted: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """(h, w) numbers of the pieces of a strip from 1 on, and the class of each."""
    numbers = np.zeros(strip.shape, np.int32)
    kinds: list[np.ndarray] = []
    total = 0
    for class_id in sorted(set(np.unique(strip).tolist()) & set(counted)):
        mask = strip == class_id
        count, pieces = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)
        numbers[mask] = pieces[mask] + total
        kinds.append(np.full(count - 1, class_id))
        total += count - 1
    return numbers, np.concatenate(kinds) if kinds else np.zeros(0, np.int64)


def _runs(numbers: np.ndarray, count: int, y: int) -> list[np.ndarray]:
    """The vertical runs of each piece, as :mod:`.runs` has them; the strip begins at row `y`."""
    columns = np.pad(numbers.T, ((0, 0), (1, 1)))
    changes = columns[:, 1:] != columns[:, :-1]
    x, first = np.nonzero(changes[:, :-1] & (numbers.T > 0))
    last = np.nonzero(changes[:, 1:] & (numbers.T > 0))[1] + 1
    order = np.argsort(numbers[first, x], kind="stable")
    runs = np.stack([x, first + y, last + y], axis=1)[order]
    ends = np.searchsorted(numbers[first, x][order], np.arange(1, count + 1), side="right")
    return np.split(runs, ends[:-1]) if count else []


def _touching(
    first: np.ndarray, kinds: np.ndarray, above: np.ndarray, over: np.ndarray
) -> list[list[int]]:
    """Pairs of pieces of one class in a row and in the row above it, corners included.

    Args:
        first: (w,) numbers in the row.
        kinds: (w,) their classes.
        above: (w,) numbers in the row above it.
        over: (w,) their classes.
    """
    pairs = []
    width = len(first)
    for step in (-1, 0, 1):
        here = slice(max(-step, 0), width - max(step, 0))
        there = slice(max(step, 0), width - max(-step, 0))
        same = (first[here] > 0) & (above[there] > 0) & (kinds[here] == over[there])
        pairs.append(np.stack([first[here][same], above[there][same]], axis=1))
    found: list[list[int]] = np.unique(np.concatenate(pairs), axis=0).tolist()
    return found


def _renumbered(
    last: np.ndarray, new: list[_Piece], open_pieces: list[_Piece]
) -> tuple[np.ndarray, np.ndarray]:
    """The last row of a strip by the places in `open_pieces`, from 1 on, and the classes there."""
    place = {id(piece): number for number, piece in enumerate(open_pieces, 1)}
    table = np.zeros(len(new) + 1, np.int64)
    for number in np.unique(last[last > 0]).tolist():
        table[number] = place[id(new[number - 1].whole)]
    classes = np.array([-1, *(piece.class_id for piece in open_pieces)])
    return table[last], classes[table[last]]


def _found(piece: _Piece) -> Found:
    return Found(piece.class_id, 1.0, mask_runs.union(piece.runs))
