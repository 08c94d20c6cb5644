"""What the checks of one sample found."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .report import Problem

__all__ = ["BoxFinding", "SampleFindings"]

# COCO's bounds of small and medium objects, in pixels.
_SMALL, _MEDIUM = 32**2, 96**2


@dataclass(frozen=True)
class BoxFinding:
    """One box.

    Attributes:
        problem: what is wrong with it, as COCO's x, y, width, height; "" if nothing is.
        is_error: False for what is only suspicious.
        fits_as_corners: as x0, y0, x1, y1 it would agree with image and mask.
    """

    problem: str
    is_error: bool
    fits_as_corners: bool


@dataclass
class SampleFindings:
    """What one sample showed.

    Attributes:
        problems: what is wrong.
        digest: of the image file's bytes; equal for equal files.
        pixels: pixels per class id; the last entry counts those without a class.
        instances: instances per class id.
        sizes: instances that are small, medium and large.
        boxes: what the boxes of annotations showed.
        areas: contradictions between an area of the file and the mask.
        no_mask: single objects without a mask, by name.
        with_mask: the number of the others.
        crowds: the number of crowds.
        is_window: the image is a window of a raster.
        gaps: its pixels that hold no data.
    """

    problems: list[Problem] = field(default_factory=list)
    digest: str = ""
    pixels: np.ndarray | None = None
    instances: dict[int, int] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=lambda: [0, 0, 0])
    boxes: list[BoxFinding] = field(default_factory=list)
    areas: list[str] = field(default_factory=list)
    no_mask: list[str] = field(default_factory=list)
    with_mask: int = 0
    crowds: int = 0
    is_window: bool = False
    gaps: int = 0

    def add(self, kind: str, message: str, *, is_error: bool = True) -> None:
        """Note a problem."""
        self.problems.append(Problem(kind, message, is_error))

    def add_instance(self, class_id: int, area: float) -> None:
        """Count an instance."""
        self.instances[class_id] = self.instances.get(class_id, 0) + 1
        self.sizes[(area >= _SMALL) + (area >= _MEDIUM)] += 1
