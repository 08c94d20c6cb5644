"""Elastic deformation, the augmentation that U-Net leans on."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .geometry import Geometry

__all__ = ["ElasticDeformation", "Warp"]

# The types of labels as OpenCV warps them; all others as int32.
_OPENCV_TYPES = {np.bool_: np.uint8, np.uint8: np.uint8, np.uint16: np.uint16}


@dataclass(frozen=True)
class ElasticDeformation:
    """Smooth random displacements on a coarse grid (Ronneberger et al. 2015, section 3.1).

    Attributes:
        sigma: standard deviation of the displacements, in pixels; the paper has 10.
        points: grid points along each side; the paper has 3. Between them displacements are
            interpolated bicubically.
    """

    sigma: float = 10.0
    points: int = 3

    def draw(self, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
        """A displacement field.

        Returns:
            (height, width, 2) float32: where each output pixel comes from (its own place and the
            displacement), x and y in pixel centres.
        """
        coarse = rng.standard_normal((self.points, self.points, 2)) * self.sigma
        # The corners of the grid lie in the corners of the image.
        field = _bicubic(coarse.astype(np.float32), height, width)
        field[..., 0] += np.arange(width, dtype=np.float32)
        field[..., 1] += np.arange(height, dtype=np.float32)[:, None]
        return field


@dataclass(frozen=True)
class Warp:
    """What happens to the pixels of a sample: a `Geometry`, then an elastic deformation if any.

    Attributes:
        geometry: the first step.
        field: (height, width, 2) float32, the displacement field: where each output pixel comes
            from in the frame of the geometry, x and y in pixel centres; None deforms nothing.
    """

    geometry: Geometry
    field: np.ndarray | None = None

    def apply_image(self, image: np.ndarray) -> np.ndarray:
        """Resample (H, W, C) bilinearly; what lies beyond the border is mirrored."""
        pixels = self.geometry.apply_image(image)
        if self.field is None:
            return pixels
        return _remap(pixels, self.field, cv2.INTER_LINEAR).reshape(pixels.shape)

    def apply_label(self, label: np.ndarray) -> np.ndarray:
        """Resample (H, W) ids by nearest neighbour; type and values stay."""
        return self.deform(self.geometry.apply_label(label))

    def deform(self, label: np.ndarray) -> np.ndarray:
        """The second step alone, for ids or a mask (h, w) that lie in the geometry's frame."""
        if self.field is None:
            return label
        kind = _OPENCV_TYPES.get(label.dtype.type, np.int32)
        return _remap(label.astype(kind), self.field, cv2.INTER_NEAREST).astype(label.dtype)


def _remap(pixels: np.ndarray, field: np.ndarray, interpolation: int) -> np.ndarray:
    return cv2.remap(
        np.ascontiguousarray(pixels), field, None, interpolation, borderMode=cv2.BORDER_REFLECT_101
    )


def _bicubic(coarse: np.ndarray, height: int, width: int) -> np.ndarray:
    """Interpolate (P, P, 2) to (height, width, 2), grid corners on image corners."""
    points = len(coarse)
    x, y = (np.linspace(0, points - 1, n, dtype=np.float32) for n in (width, height))
    return cv2.remap(
        coarse, *np.meshgrid(x, y), interpolation=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
    )
