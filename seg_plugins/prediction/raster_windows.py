"""Windows of a raster as a network sees them and as they are shown."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..io.gaps import filled
from ..io.rasters import read_gaps, read_window
from ..visualization import overlays
from .inputs import Picture, Preparation

# Pictures that values other than 8 bits are stretched by have this longer side.
_PREVIEW = 512

Span = tuple[int, int]


class RasterWindows:
    """Reads windows of a raster, with one range of values shown for all of them.

    Args:
        source: an open raster.
        preparation: of the model.
    """

    def __init__(self, source: Any, preparation: Preparation) -> None:
        self.source, self.preparation = source, preparation
        self.limits: tuple[float, float] | None = None
        if preparation.image_format == "raw" and source.dtypes[0] != "uint8":
            scale = max(source.height, source.width) / _PREVIEW
            shape = (max(int(source.height / scale), 1), max(int(source.width / scale), 1))
            values = source.read(out_shape=(source.count, *shape), masked=True)
            values = values.astype(np.float64).compressed()
            if len(values):
                low, high = np.percentile(values, (0.5, 99.5))
                self.limits = float(low), float(high)

    def read(self, rows: Span, columns: Span) -> tuple[Picture, np.ndarray]:
        """The pixels from the first to the last (exclusive) row and column.

        Returns:
            The window, the mean colour where there is no data, and (h, w) bool: where that is.
        """
        image_format = self.preparation.image_format
        pixels = read_window(self.source, rows, columns, image_format)
        gaps = read_gaps(self.source, rows, columns, image_format)
        return self._picture(pixels, gaps), gaps

    def _picture(self, pixels: np.ndarray, gaps: np.ndarray) -> Picture:
        preparation = self.preparation
        if gaps.any():
            is_bgr = preparation.image_format == "BGR"  # of which windows are read as RGB
            pixels = filled(pixels, gaps, preparation.mean[::-1] if is_bgr else preparation.mean)
        if preparation.image_format != "raw":
            return preparation.from_array(pixels)
        shown = pixels
        if self.limits is not None:
            low, high = self.limits
            stretched = (pixels - low) * (255 / max(high - low, 1e-12))
            shown = stretched.clip(0, 255).astype(np.uint8)
        return Picture(overlays.displayable(shown), pixels)
