"""Resize, crop, flips and quarter turns as one resampling step.

Any sequence of these operations keeps the axes, so it comes down to: resample a box of the source
to some size, then transpose and mirror. `Geometry` holds that form. Operations are added lazily;
pixels are touched once, and only those of the crop.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

__all__ = ["Geometry"]


@dataclass(frozen=True)
class Geometry:
    """What happens to the pixels of a source image.

    The frame "before turning" is the resampled box; the output is that, transposed if
    `transpose`, then mirrored if `flip_x`, `flip_y`.

    Attributes:
        source: (height, width) of the source image.
        box: (x0, y0, x1, y1) in source pixels, at pixel edges; may have fractions.
        size: (height, width) the box is resampled to, before turning.
    """

    source: tuple[int, int]
    box: tuple[float, float, float, float]
    size: tuple[int, int]
    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False

    @classmethod
    def identity(cls, source: tuple[int, int]) -> Geometry:
        """No change to an image of (height, width)."""
        return cls(source, (0.0, 0.0, float(source[1]), float(source[0])), source)

    @property
    def output_size(self) -> tuple[int, int]:
        """(height, width) of the result."""
        height, width = self.size
        return (width, height) if self.transpose else (height, width)

    def resize(self, height: int, width: int) -> Geometry:
        """Then resize the result to `height` x `width`."""
        return replace(self, size=(width, height) if self.transpose else (height, width))

    def crop(self, y: int, x: int, height: int, width: int) -> Geometry:
        """Then cut out a window of the result.

        Raises:
            ValueError: the window reaches beyond the result.
        """
        full_height, full_width = self.output_size
        if not (0 <= y <= full_height - height and 0 <= x <= full_width - width):
            raise ValueError(
                f"crop of {height}x{width} at ({y}, {x}) leaves {full_height}x{full_width}"
            )
        if self.flip_x:
            x = full_width - width - x
        if self.flip_y:
            y = full_height - height - y
        if self.transpose:
            y, x, height, width = x, y, width, height
        x0, y0, x1, y1 = self.box
        step_x, step_y = (x1 - x0) / self.size[1], (y1 - y0) / self.size[0]
        box = (
            x0 + x * step_x,
            y0 + y * step_y,
            x0 + (x + width) * step_x,
            y0 + (y + height) * step_y,
        )
        return replace(self, box=box, size=(height, width))

    def flip(self, *, horizontal: bool) -> Geometry:
        """Then mirror left and right, or top and bottom."""
        if horizontal:
            return replace(self, flip_x=not self.flip_x)
        return replace(self, flip_y=not self.flip_y)

    def turn(self, quarters: int) -> Geometry:
        """Then turn counter-clockwise by quarter turns, as `numpy.rot90`."""
        result = self
        for _ in range(quarters % 4):
            # rot90 is a transposition followed by mirroring top and bottom.
            result = replace(
                result,
                transpose=not result.transpose,
                flip_x=result.flip_y,
                flip_y=not result.flip_x,
            )
        return result

    def apply_image(self, image: np.ndarray) -> np.ndarray:
        """Resample an image bilinearly, with antialiasing where it shrinks.

        Args:
            image: (H, W, C) of the source size; uint8, or any other type, which gives float32
                where it is resampled.

        Returns:
            (h, w, C) of the output size.
        """
        height, width = self.size
        x0, y0, x1, y1 = self.box
        if (x1 - x0, y1 - y0) == (width, height) and x0.is_integer() and y0.is_integer():
            pixels = image[int(y0) : int(y1), int(x0) : int(x1)]
        else:
            pixels = self._resample(image)
        return self._turned(pixels)

    def apply_label(self, label: np.ndarray) -> np.ndarray:
        """Resample (H, W) ids by nearest neighbour; type and values stay."""
        rows, columns = self.source_rows(), self.source_columns()
        if _is_range(rows) and _is_range(columns):
            picked = label[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        else:
            picked = label[rows][:, columns]
        return self._turned(picked)

    def apply_points(self, points: np.ndarray) -> np.ndarray:
        """Move points (N, 2), x and y in source pixels at pixel edges, into the output frame."""
        x0, y0, x1, y1 = self.box
        height, width = self.size
        moved = (points - (x0, y0)) * (width / (x1 - x0), height / (y1 - y0))
        if self.transpose:
            moved = moved[:, ::-1]
        out_height, out_width = self.output_size
        if self.flip_x:
            moved = moved * (-1, 1) + (out_width, 0)
        if self.flip_y:
            moved = moved * (1, -1) + (0, out_height)
        return moved

    def source_rows(self) -> np.ndarray:
        """The nearest source row of each row before turning."""
        return _nearest(self.box[1], self.box[3], self.size[0], self.source[0])

    def source_columns(self) -> np.ndarray:
        """The nearest source column of each column before turning."""
        return _nearest(self.box[0], self.box[2], self.size[1], self.source[1])

    def unturned_view(self, pixels: np.ndarray) -> np.ndarray:
        """A view of output pixels (h, w, ...) in the frame before turning."""
        if self.flip_y:
            pixels = pixels[::-1]
        if self.flip_x:
            pixels = pixels[:, ::-1]
        return pixels.swapaxes(0, 1) if self.transpose else pixels

    def _turned(self, pixels: np.ndarray) -> np.ndarray:
        if self.transpose:
            pixels = pixels.swapaxes(0, 1)
        if self.flip_x:
            pixels = pixels[:, ::-1]
        if self.flip_y:
            pixels = pixels[::-1]
        return pixels

    def _resample(self, image: np.ndarray) -> np.ndarray:
        # Pillow copies its whole input: hand it what the box and the filter need, no more.
        top, bottom = _reach(self.box[1], self.box[3], self.size[0], self.source[0])
        left, right = _reach(self.box[0], self.box[2], self.size[1], self.source[1])
        window = image[top:bottom, left:right]
        x0, y0, x1, y1 = self.box
        box = (x0 - left, y0 - top, x1 - left, y1 - top)
        if image.dtype == np.uint8 and image.shape[2] == 3:
            # Pillow's RGB is any three channels; their order does not matter here.
            return _resize(window, self.size, box)
        # One channel at a time, in floating point unless it has 8 bits, keeps any depth and any
        # number of channels.
        kind = np.uint8 if image.dtype == np.uint8 else np.float32
        channels = [
            _resize(channel.astype(kind, copy=False), self.size, box)
            for channel in np.moveaxis(window, 2, 0)
        ]
        return np.stack(channels, axis=2)


def _resize(
    pixels: np.ndarray, size: tuple[int, int], box: tuple[float, float, float, float]
) -> np.ndarray:
    source = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(source.resize((size[1], size[0]), Image.Resampling.BILINEAR, box))


def _reach(low: float, high: float, count: int, limit: int) -> tuple[int, int]:
    """First and last (exclusive) source index that resampling reads along one axis."""
    support = max((high - low) / count, 1.0)
    return max(int(low - support) - 1, 0), min(int(np.ceil(high + support)) + 1, limit)


def _nearest(low: float, high: float, count: int, limit: int) -> np.ndarray:
    centers = low + (np.arange(count) + 0.5) * ((high - low) / count)
    return np.clip(np.floor(centers).astype(np.int64), 0, limit - 1)


def _is_range(indices: np.ndarray) -> bool:
    return bool(indices[-1] - indices[0] == len(indices) - 1 and (np.diff(indices) == 1).all())
