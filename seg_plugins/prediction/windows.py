"""Windows over an image that does not fit into memory, and the blending of their logits."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..modeling.inference import gaussian_weight
from .errors import PredictionError

# (C, h, w) pixels of rows y0 to y1 and columns x0 to x1 -> (K, h, w) logits.
PredictWindow = Callable[[int, int, int, int], Tensor]


@dataclass(frozen=True)
class WindowGrid:
    """Overlapping windows whose logits are blended.

    Attributes:
        size: height and width of a window.
        overlap: pixels that neighbours share, at least.
        margin: pixels at the inner borders of a window that count for nothing. A network whose
            receptive field reaches no farther gives the same as on the whole image.
        alignment: windows start at multiples of it: the network's largest stride.
    """

    size: int = 1024
    overlap: int = 256
    margin: int = 64
    alignment: int = 1

    def __post_init__(self) -> None:
        """Raise ValueError where windows would not cover the image."""
        if not 0 <= 2 * self.margin < self.overlap < self.size or self.stride < 1:
            raise PredictionError(
                f"windows of {self.size} pixels with an overlap of {self.overlap} and a margin of "
                f"{self.margin}: the overlap must be more than twice the margin, and leave at "
                f"least {self.alignment} pixels of the window"
            )

    @property
    def stride(self) -> int:
        """Pixels from one window to the next."""
        return (self.size - self.overlap) // self.alignment * self.alignment

    def spans(self, length: int) -> list[tuple[int, int]]:
        """First and last (exclusive) pixel of the windows along a side of the image."""
        if length <= self.size:
            return [(0, length)]
        # The last window takes the few pixels more that keep its start aligned.
        last = (length - self.size) // self.alignment * self.alignment
        return [*((i, i + self.size) for i in range(0, last, self.stride)), (last, length)]

    def weights(self, span: tuple[int, int], length: int) -> Tensor:
        """Gaussian weights along a window, 0 in its margins inside the image."""
        weight = gaussian_weight(span[1] - span[0])
        if span[0] > 0:
            weight[: self.margin] = 0
        if span[1] < length:
            weight[len(weight) - self.margin :] = 0
        return weight


def blend_windows(
    predict: PredictWindow,
    height: int,
    width: int,
    grid: WindowGrid,
    folder: Path,
) -> Iterator[tuple[int, int, Tensor]]:
    """Predict an image window by window and give its logits block by block.

    Memory is that of a few windows. Sums that wait for the next row of windows lie in a temporary
    file, (overlap x width x classes) numbers.

    Args:
        predict: called with y0, y1, x0, x1.
        height: of the image.
        width: of the image.
        grid: the windows.
        folder: of the temporary file.

    Yields:
        Row and column of a block's first pixel, and its (K, h, w) blended logits. Blocks are
        disjoint and cover the image; each lies in the window that was predicted last.
    """
    rows, columns = grid.spans(height), grid.spans(width)
    sums_y, sums_x = (_total(grid, spans) for spans in (rows, columns))
    waiting = max((a[1] - b[0] for a, b in itertools.pairwise(rows)), default=0)
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        carried = 0
        for (y0, y1), y_next in zip(rows, [y for y, _ in rows[1:]] + [height], strict=True):
            weight_y = grid.weights((y0, y1), height)
            total: Tensor | None = None
            for (x0, x1), x_next in zip(
                columns, [x for x, _ in columns[1:]] + [width], strict=True
            ):
                logits = predict(y0, y1, x0, x1).float().cpu()
                classes = len(logits)
                logits *= weight_y[:, None] * grid.weights((x0, x1), width)
                begun = 0 if total is None else total.shape[2]
                entering = torch.zeros(classes, y1 - y0, x1 - x0 - begun)
                if carried:
                    stored = _load(file, x0 + begun, x1, classes, waiting)
                    entering[:, :carried] = stored[:, :carried]
                total = entering if total is None else torch.cat([total, entering], dim=2)
                total += logits
                ready, total = total[:, :, : x_next - x0], total[:, :, x_next - x0 :]
                if y1 > y_next:
                    _store(file, x0, ready[:, y_next - y0 :], waiting)
                norm = sums_y[y0:y_next, None] * sums_x[x0:x_next]
                yield y0, x0, ready[:, : y_next - y0] / norm
            carried = y1 - y_next


def _total(grid: WindowGrid, spans: Sequence[tuple[int, int]]) -> Tensor:
    """The sum of all windows' weights at each pixel of a side."""
    length = spans[-1][1]
    total = torch.zeros(length)
    for start, end in spans:
        total[start:end] += grid.weights((start, end), length)
    return total


def _store(file: Any, column: int, sums: Tensor, rows: int) -> None:
    """Keep (K, h, w) sums; each column has room for K x `rows` numbers."""
    classes, height, width = sums.shape
    block = np.zeros((width, classes, rows), np.float32)
    block[:, :, :height] = sums.permute(2, 0, 1).numpy()
    file.seek(column * classes * rows * 4)
    data = block.data.cast("B")
    while data:  # an unbuffered file may take less than it is given
        data = data[file.write(data) :]


def _load(file: Any, first: int, last: int, classes: int, rows: int) -> Tensor:
    """The (K, rows, last - first) sums of some columns."""
    file.seek(first * classes * rows * 4)
    block = np.empty((last - first, classes, rows), np.float32)
    data = block.data.cast("B")
    while data:
        data = data[file.readinto(data) :]
    return torch.from_numpy(block).permute(1, 2, 0)
