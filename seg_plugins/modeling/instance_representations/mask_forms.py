"""The forms in which instance representations give masks, each painted one at a time."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...io.masks import to_bitmask, to_run_lengths


class MaskForm(Protocol):
    """N masks of one image; a field of Detectron2's ``Instances``, so that it takes indices."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any) -> MaskForm: ...

    def paint(self, index: int, image_size: tuple[int, int], height: int, width: int) -> Tensor:
        """One mask, (height, width) bool.

        Args:
            index: which.
            image_size: rows and columns of the image in the network, without padding.
            height: rows of the output, to which the image is stretched.
            width: columns of the output.
        """
        ...

    def tensors(self, height: int, width: int) -> dict[str, Tensor]:
        """What an exported file gives of the masks, in the image's own pixels.

        Args:
            height: rows of the image, without padding.
            width: columns.

        Returns:
            ``boxes`` (N, 4), and the masks under a name of their own; all by operators that
            tracing can follow.
        """
        ...


class DenseMasks:
    """Probabilities on a grid over the padded image, of an exact stride from its top-left corner.

    A pixel of the output belongs to the mask where the probability, interpolated between the
    grid's cell centres, is above the threshold. It is interpolated once, from the grid to the
    output, and only around the cells that are above the threshold: no other pixel can be.

    Args:
        maps: (N, h, w) probabilities.
        stride: pixels of the padded image by cell, a whole number.
        threshold: of a pixel's probability.
    """

    def __init__(self, maps: Tensor, stride: int, threshold: float = 0.5) -> None:
        self.maps, self.stride, self.threshold = maps.float(), stride, threshold
        self._extents: list[list[int]] | None = None

    def __len__(self) -> int:
        return len(self.maps)

    def __getitem__(self, index: Any) -> DenseMasks:
        return DenseMasks(self.maps[index], self.stride, self.threshold)

    def to(self, *args: Any, **kwargs: Any) -> DenseMasks:
        """On another device."""
        return DenseMasks(self.maps.to(*args, **kwargs), self.stride, self.threshold)

    def paint(self, index: int, image_size: tuple[int, int], height: int, width: int) -> Tensor:
        """See :class:`MaskForm`."""
        if self._extents is None:
            self._extents = extents(self.maps > self.threshold).tolist()
        steps = (image_size[0] / height / self.stride, image_size[1] / width / self.stride)
        return _paint(
            self.maps[index], self._extents[index], steps, (height, width), self.threshold
        )

    def tensors(self, height: int, width: int) -> dict[str, Tensor]:
        """``masks``: (N, height, width) probabilities; ``boxes``: the bounds of those above 0.5."""
        maps = self.maps[:, None]
        if self.stride != 1:
            maps = F.interpolate(
                maps, scale_factor=float(self.stride), mode="bilinear", align_corners=False
            )
        masks = maps[:, 0, :height, :width]
        bounds = extents(masks > self.threshold)[:, [1, 0, 3, 2]]
        return {"boxes": bounds.float(), "masks": masks}


class WindowMasks:
    """Probabilities on the cells of a window each, of a grid over the padded image; 0 outside it.

    Painted as :class:`DenseMasks`: interpolated once, between the cells' centres.

    Args:
        windows: (N, m, m) probabilities.
        corners: (N, 2) int64 row and column of a window's first cell; cells may be outside the
            image.
        strides: (N, 2) pixels of the image by cell, down and across.
        threshold: of a pixel's probability.
    """

    def __init__(
        self, windows: Tensor, corners: Tensor, strides: Tensor, threshold: float = 0.5
    ) -> None:
        self.windows, self.corners, self.strides = windows.float(), corners, strides.float()
        self.threshold = threshold
        self._places: list[tuple[list[int], list[int], list[float]]] | None = None

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: Any) -> WindowMasks:
        parts = (self.windows[index], self.corners[index], self.strides[index])
        return WindowMasks(*parts, self.threshold)

    def to(self, *args: Any, **kwargs: Any) -> WindowMasks:
        """On another device."""
        windows, corners, strides = (
            part.to(*args, **kwargs) for part in (self.windows, self.corners, self.strides)
        )
        return WindowMasks(windows, corners, strides, self.threshold)

    @property
    def boxes(self) -> Tensor:
        """(N, 4) bounds of the cells above the threshold in pixels; empty where there are none."""
        cells = extents(self.windows > self.threshold)
        seen = cells[:, 2:] > cells[:, :2]
        place = (cells + self.corners.repeat(1, 2)) * seen.repeat(1, 2)
        return (place * self.strides.repeat(1, 2))[:, [1, 0, 3, 2]]

    def tensors(self, height: int, width: int) -> dict[str, Tensor]:
        """``masks``: (N, height, width) probabilities; ``boxes``: the bounds of those above 0.5."""
        masks = self.dense(height, width)
        bounds = extents(masks > self.threshold)[:, [1, 0, 3, 2]]
        return {"boxes": bounds.float(), "masks": masks}

    def dense(self, height: int, width: int) -> Tensor:
        """Probabilities of every pixel of the image, (N, height, width)."""
        side, at = self.windows.shape[-1], []
        for axis, pixels in enumerate((height, width)):
            places = torch.arange(pixels, device=self.windows.device) + 0.5
            cells = (places / self.strides[:, axis, None]).clamp(min=0.5) - self.corners[
                :, axis, None
            ]
            at.append(cells * (2 / side) - 1)
        y, x = at
        grid = torch.stack(
            [x[:, None].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], dim=-1
        )
        return F.grid_sample(self.windows[:, None], grid, align_corners=False)[:, 0]

    def paint(self, index: int, image_size: tuple[int, int], height: int, width: int) -> Tensor:
        """See :class:`MaskForm`."""
        if self._places is None:
            bounds = extents(self.windows > self.threshold).tolist()
            places = (bounds, self.corners.tolist(), self.strides.tolist())
            self._places = list(zip(*places, strict=True))
        (top, left, bottom, right), (row, column), (down, across) = self._places[index]
        # Outside the window the probability is 0.
        grid = F.pad(self.windows[index], (1, 1, 1, 1))
        extent = [top + row, left + column, bottom + row, right + column]
        steps = (image_size[0] / height / down, image_size[1] / width / across)
        origin = (row - 1, column - 1)
        return _paint(grid, extent, steps, (height, width), self.threshold, origin)


def _paint(
    grid: Tensor,
    extent: list[int],
    steps: tuple[float, float],
    size: tuple[int, int],
    threshold: float,
    origin: tuple[int, int] = (0, 0),
) -> Tensor:
    """One mask of an image from probabilities on a part of a grid over it.

    Args:
        grid: (h, w) probabilities.
        extent: first row, first column, and those after the last of the cells of the image's grid
            that are above the threshold.
        steps: cells by pixel, down and across.
        size: rows and columns of the image.
        threshold: of a pixel's probability.
        origin: the image's cell that the first of `grid` is.
    """
    out = torch.zeros(size, dtype=torch.bool, device=grid.device)
    top, left, bottom, right = extent
    if bottom <= top:
        return out
    rows = _Samples(top, bottom, steps[0], len(grid), size[0], grid.device, origin[0])
    columns = _Samples(left, right, steps[1], grid.shape[1], size[1], grid.device, origin[1])
    # Rows first: of the grid's columns only those that are needed.
    near = slice(columns.first, columns.last + 1)
    lines = torch.lerp(grid[rows.low, near], grid[rows.high, near], rows.part[:, None])
    low, high = columns.low - columns.first, columns.high - columns.first
    values = torch.lerp(lines[:, low], lines[:, high], columns.part)
    out[rows.place, columns.place] = values > threshold
    return out


class _Samples:
    """Where the pixels of an output that lie around some cells fall between the cells' centres."""

    def __init__(
        self,
        start: int,
        end: int,
        step: float,
        cells: int,
        pixels: int,
        device: torch.device,
        origin: int = 0,
    ) -> None:
        # Pixel i is at cell (i + 0.5) * step - 0.5; those nearer than one cell to [start, end).
        first = min(max(int((start - 0.5) / step - 0.5), 0), pixels - 1)
        last = min(max(int((end + 0.5) / step + 0.5), first), pixels - 1)
        self.place = slice(first, last + 1)
        at = (torch.arange(first, last + 1, dtype=torch.float64) + 0.5) * step - 0.5
        # A pixel between the image's border and its first centre has that cell's value.
        at = (at.clamp(min=0) - origin).clamp(0, cells - 1)
        low = at.floor().long().clamp(max=max(cells - 2, 0))
        self.first, self.last = int(low[0]), min(int(low[-1]) + 1, cells - 1)
        self.part = (at - low).float().to(device)
        self.low = low.to(device)
        self.high = (low + 1).clamp(max=cells - 1).to(device)


class OutlineMasks:
    """Polygons in the padded image, filled as COCO's API fills them.

    Args:
        points: (N, R, 2) x, y in pixels, in order around each mask.
    """

    def __init__(self, points: Tensor) -> None:
        self.points = points.float()

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: Any) -> OutlineMasks:
        return OutlineMasks(self.points[index])

    def to(self, *args: Any, **kwargs: Any) -> OutlineMasks:
        """On another device."""
        return OutlineMasks(self.points.to(*args, **kwargs))

    def paint(self, index: int, image_size: tuple[int, int], height: int, width: int) -> Tensor:
        """See :class:`MaskForm`."""
        scale = np.array([width / image_size[1], height / image_size[0]])
        points = self.points[index].detach().cpu().double().numpy() * scale
        points = points.clip(0, [width, height])
        mask = to_bitmask(to_run_lengths([points.ravel()], height, width), height, width)
        return torch.from_numpy(mask.astype(bool)).to(self.points.device)

    def tensors(self, height: int, width: int) -> dict[str, Tensor]:
        """``outlines``: (N, R, 2) x, y in the image's pixels; ``boxes``: their bounds."""
        x, y = self.points[..., :1], self.points[..., 1:]
        # Sizes are numbers that tracing follows: no constant may stand for them.
        points = torch.cat([torch.clamp(x, 0, width), torch.clamp(y, 0, height)], dim=2)
        return {"boxes": torch.cat([points.amin(1), points.amax(1)], dim=1), "outlines": points}


def extents(inside: Tensor) -> Tensor:
    """(N, 4) first row, first column, and those after the last, of (N, h, w) bool; 0 if empty."""
    parts = []
    for dim in (2, 1):
        hit = inside.any(dim=dim)
        size = hit.shape[1]
        places = torch.arange(size, device=hit.device)
        parts.append(torch.where(hit, places, size).amin(dim=1))
        parts.append(torch.where(hit, places + 1, 0).amax(dim=1))
    top, bottom, left, right = parts
    return torch.stack([top, left, bottom, right], dim=1)
