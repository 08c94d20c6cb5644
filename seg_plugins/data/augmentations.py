"""Random geometry: each augmentation adds one operation to a `Geometry`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from .geometry import Geometry

__all__ = ["Augmentation", "Crop", "Flip", "ResizeShortestEdge", "class_counts"]


class Augmentation(Protocol):
    """A random choice of geometry."""

    def __call__(
        self, rng: np.random.Generator, geometry: Geometry, label: np.ndarray | None
    ) -> Geometry:
        """Add an operation.

        Args:
            rng: the only source of randomness.
            geometry: what happens so far.
            label: (H, W) class ids of the source image, for choices that depend on them.
        """


@dataclass(frozen=True)
class ResizeShortestEdge:
    """Resize so that the shorter edge gets a random length, keeping the aspect ratio.

    Attributes:
        lengths: the lengths to choose from; with `as_range` any between the first and the last.
        max_size: limit of the longer edge, which then decides.
        as_range: see `lengths`.
    """

    lengths: Sequence[int]
    max_size: int
    as_range: bool = False

    def __call__(
        self, rng: np.random.Generator, geometry: Geometry, label: np.ndarray | None
    ) -> Geometry:
        """Resize; a chosen length of 0 keeps the size."""
        if self.as_range:
            length = int(rng.integers(min(self.lengths), max(self.lengths) + 1))
        else:
            length = self.lengths[int(rng.integers(len(self.lengths)))]
        if length == 0:
            return geometry
        height, width = geometry.output_size
        scale = min(length / min(height, width), self.max_size / max(height, width))
        # Rounded half up, as Detectron2 does.
        return geometry.resize(int(height * scale + 0.5), int(width * scale + 0.5))


@dataclass(frozen=True)
class Crop:
    """Cut out a random window, at most as large as the image.

    Attributes:
        size: (height, width) in pixels, or fractions of the image with `relative`.
        relative: see `size`.
        max_class_share: draw again, up to ten times, while one class has more than this share
            of the window's valid pixels; 1 takes the first window (Chen et al. 2018).
        ignore_label: pixels that do not count for the share.
    """

    size: tuple[float, float]
    relative: bool = False
    max_class_share: float = 1.0
    ignore_label: int = 255

    def __call__(
        self, rng: np.random.Generator, geometry: Geometry, label: np.ndarray | None
    ) -> Geometry:
        """Crop."""
        cropped = self._draw(rng, geometry)
        if label is None or self.max_class_share >= 1:
            return cropped
        for _ in range(9):
            counts = class_counts(cropped.apply_label(label))
            if self.ignore_label < len(counts):
                counts[self.ignore_label] = 0
            if counts.max() < counts.sum() * self.max_class_share and (counts > 0).sum() > 1:
                break
            cropped = self._draw(rng, geometry)
        return cropped

    def _draw(self, rng: np.random.Generator, geometry: Geometry) -> Geometry:
        full_height, full_width = geometry.output_size
        height, width = self.size
        if self.relative:
            height, width = height * full_height + 0.5, width * full_width + 0.5
        height, width = min(int(height), full_height), min(int(width), full_width)
        y = int(rng.integers(full_height - height + 1))
        x = int(rng.integers(full_width - width + 1))
        return geometry.crop(y, x, height, width)


@dataclass(frozen=True)
class Flip:
    """Mirror with a probability."""

    probability: float = 0.5
    horizontal: bool = True

    def __call__(
        self, rng: np.random.Generator, geometry: Geometry, label: np.ndarray | None
    ) -> Geometry:
        """Mirror, or not."""
        if rng.random() < self.probability:
            return geometry.flip(horizontal=self.horizontal)
        return geometry


def class_counts(label: np.ndarray) -> np.ndarray:
    """Pixels of each id: (number of ids,) int64."""
    if label.dtype == np.uint8:  # several times as fast as bincount
        label = np.ascontiguousarray(label)
        return cv2.calcHist([label], [0], None, [256], [0, 256])[:, 0].astype(np.int64)
    return np.bincount(label.ravel())
