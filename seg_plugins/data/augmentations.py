"""Random geometry: each augmentation adds one operation to a `Geometry`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import cv2
import numpy as np

from ..config import ConfigError
from .geometry import Geometry

__all__ = [
    "Augmentation",
    "Content",
    "Crop",
    "Flip",
    "Resize",
    "ResizeShortestEdge",
    "ScaleJitter",
    "Turn",
    "class_counts",
]


CROP_KINDS = ("absolute", "relative", "relative_range", "absolute_range")


@dataclass(frozen=True)
class Content:
    """What a source image shows: for choices that depend on it, and to make the targets of.

    Each task fills in what it has.

    Attributes:
        label: (H, W) class ids, or None.
        boxes: (N, 4) x0, y0, x1, y1 in pixels, or None.
        annotations: Detectron2's dicts of the instances, one per box, or of the segments.
        segment_ids: (H, W) ids of the segments, or None.
    """

    label: Any = None
    boxes: Any = None
    annotations: list[dict[str, Any]] = field(default_factory=list)
    segment_ids: Any = None


class Augmentation(Protocol):
    """A random choice of geometry."""

    def __call__(self, rng: np.random.Generator, geometry: Geometry, content: Content) -> Geometry:
        """Add an operation to what happens so far; `rng` is the only source of randomness."""


@dataclass(frozen=True)
class ResizeShortestEdge:
    """Resize so that the shorter edge gets a random length, keeping the aspect ratio.

    Attributes:
        lengths: the lengths to choose from; with `as_range` any between the first and the last.
            A length of 0 keeps the size.
        max_size: limit of the longer edge, which then decides.
        as_range: see `lengths`.
    """

    lengths: Sequence[int]
    max_size: int
    as_range: bool = False

    def __call__(self, rng: np.random.Generator, geometry: Geometry, content: Content) -> Geometry:
        """Resize."""
        if self.as_range:
            length = int(rng.integers(min(self.lengths), max(self.lengths) + 1))
        else:
            length = self.lengths[int(rng.integers(len(self.lengths)))]
        if length == 0:
            return geometry
        height, width = geometry.output_size
        scale = min(length / min(height, width), self.max_size / max(height, width))
        return _scaled(geometry, scale)


@dataclass(frozen=True)
class Resize:
    """Resize to one size, (height, width), whatever the aspect ratio."""

    size: tuple[int, int]

    def __call__(self, rng: np.random.Generator, geometry: Geometry, content: Content) -> Geometry:
        """Resize."""
        return geometry.resize(*self.size)


@dataclass(frozen=True)
class ScaleJitter:
    """Fit the image into a target size and scale it by a random factor.

    With a crop of the target size and padding up to it this is large-scale jitter
    (Ghiasi et al. 2021).

    Attributes:
        size: (height, width) that the image fits into at factor 1.
        factors: range of the factor.
    """

    size: tuple[int, int]
    factors: tuple[float, float] = (0.1, 2.0)

    def __call__(self, rng: np.random.Generator, geometry: Geometry, content: Content) -> Geometry:
        """Resize."""
        height, width = geometry.output_size
        fit = min(self.size[0] / height, self.size[1] / width)
        return _scaled(geometry, fit * rng.uniform(*self.factors))


@dataclass(frozen=True)
class Crop:
    """Cut out a random window, at most as large as the image.

    Where there are boxes and no label, the window holds the centre of a random box, so that it
    is not empty.

    Attributes:
        size: as `kind` says.
        kind: one of Detectron2's: "absolute", (height, width) in pixels; "relative", fractions
            of the image's; "relative_range", random fractions from these to 1; "absolute_range",
            (lowest, highest) of both sides in pixels, drawn apart.
        max_class_share: draw again, up to ten times in all, while one class has more than this
            share of the window's valid pixels; 1 takes the first window (Chen et al. 2018).
        rare_class_chance: with this probability the window holds a random pixel of a class that
            is drawn evenly from those in the image, so that rare classes are seen more often.
        ignore_label: pixels that count for neither.
    """

    size: tuple[float, float]
    kind: str = "absolute"
    max_class_share: float = 1.0
    rare_class_chance: float = 0.0
    ignore_label: int = 255

    def __post_init__(self) -> None:
        if self.kind not in CROP_KINDS:
            raise ConfigError(
                f"INPUT.CROP.TYPE is {self.kind!r}; it should be one of {', '.join(CROP_KINDS)}"
            )
        pixels = self.kind.startswith("absolute")
        fits = all(
            side >= 1 and side == int(side) if pixels else 0 < side <= 1 for side in self.size
        )
        if not fits or (self.kind == "absolute_range" and self.size[0] > self.size[1]):
            wanted = "whole numbers of pixels, e.g. [256, 320]" if pixels else "shares in (0, 1]"
            raise ConfigError(
                f"INPUT.CROP.SIZE {list(self.size)} should be {wanted}: "
                f"INPUT.CROP.TYPE is {self.kind}"
            )

    def __call__(self, rng: np.random.Generator, geometry: Geometry, content: Content) -> Geometry:
        """Crop."""
        label, boxes = content.label, content.boxes
        center = None
        if label is not None:
            if self.rare_class_chance > 0 and rng.random() < self.rare_class_chance:
                center = _pixel_of_random_class(rng, label, self.ignore_label)
        elif boxes is not None and len(boxes):
            box = boxes[int(rng.integers(len(boxes)))]
            center = (box[:2] + box[2:]) / 2
        cropped = self._draw(rng, geometry, center)
        if label is None or self.max_class_share >= 1:
            return cropped
        for _ in range(9):
            counts = class_counts(cropped.apply_label(label))
            if self.ignore_label < len(counts):
                counts[self.ignore_label] = 0
            if counts.max() < counts.sum() * self.max_class_share:
                break
            cropped = self._draw(rng, geometry, center)
        return cropped

    def _draw(
        self, rng: np.random.Generator, geometry: Geometry, center: np.ndarray | None
    ) -> Geometry:
        full = np.array(geometry.output_size)
        size = np.minimum(self._draw_size(rng, full).astype(np.int64), full)
        low, high = np.zeros(2, np.int64), full - size
        if center is not None:
            x, y = geometry.apply_points(center[None])[0]
            low = np.clip(np.ceil((y, x)).astype(np.int64) - size, low, high)
            high = np.clip(np.floor((y, x)).astype(np.int64), low, high)
        top, left = (int(rng.integers(a, b + 1)) for a, b in zip(low, high, strict=True))
        return geometry.crop(top, left, int(size[0]), int(size[1]))

    def _draw_size(self, rng: np.random.Generator, full: np.ndarray) -> np.ndarray:
        size = np.array(self.size)
        if self.kind == "relative":
            return size * full + 0.5
        if self.kind == "relative_range":
            return (size + (1 - size) * rng.random(2)) * full + 0.5
        if self.kind == "absolute_range":
            return rng.integers(int(size[0]), int(size[1]) + 1, 2)
        return size


@dataclass(frozen=True)
class Flip:
    """Mirror left and right, or top and bottom, with a probability."""

    probability: float = 0.5
    horizontal: bool = True

    def __call__(self, rng: np.random.Generator, geometry: Geometry, content: Content) -> Geometry:
        """Mirror, or not."""
        if rng.random() < self.probability:
            return geometry.flip(horizontal=self.horizontal)
        return geometry


@dataclass(frozen=True)
class Turn:
    """Turn by 0, 90, 180 or 270 degrees, all as likely."""

    def __call__(self, rng: np.random.Generator, geometry: Geometry, content: Content) -> Geometry:
        """Turn."""
        return geometry.turn(int(rng.integers(4)))


def class_counts(label: np.ndarray) -> np.ndarray:
    """Pixels of each id: (number of ids,) int64."""
    if label.dtype == np.uint8:  # several times as fast as bincount
        label = np.ascontiguousarray(label)
        # OpenCV 4 gives a column, OpenCV 5 a row of numbers.
        return cv2.calcHist([label], [0], None, [256], [0, 256]).ravel().astype(np.int64)
    return np.bincount(label.ravel())


def _scaled(geometry: Geometry, scale: float) -> Geometry:
    height, width = geometry.output_size
    # Rounded half up, as Detectron2 does.
    return geometry.resize(max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1))


def _pixel_of_random_class(
    rng: np.random.Generator, label: np.ndarray, ignore_label: int
) -> np.ndarray | None:
    """The centre, x and y, of a random pixel of a random class; None without valid pixels."""
    present = [i for i in np.flatnonzero(class_counts(label)) if i != ignore_label]
    if not present:
        return None
    places = np.flatnonzero(label == present[int(rng.integers(len(present)))])
    y, x = divmod(int(places[int(rng.integers(len(places)))]), label.shape[1])
    return np.array([x + 0.5, y + 0.5])
