"""Elastic deformation, the augmentation that U-Net leans on."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

__all__ = ["ElasticDeformation"]


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
        """Where each output pixel comes from.

        Returns:
            (height, width, 2) float32, x and y in pixel centres.
        """
        coarse = rng.standard_normal((self.points, self.points, 2)) * self.sigma
        # The corners of the grid lie in the corners of the image.
        moves = _bicubic(coarse.astype(np.float32), height, width)
        moves[..., 0] += np.arange(width, dtype=np.float32)
        moves[..., 1] += np.arange(height, dtype=np.float32)[:, None]
        return moves

    @staticmethod
    def apply_image(image: np.ndarray, moves: np.ndarray) -> np.ndarray:
        """Warp (H, W, C) bilinearly; what lies beyond the border is mirrored."""
        return _remap(image, moves, cv2.INTER_LINEAR).reshape(image.shape)

    @staticmethod
    def apply_label(label: np.ndarray, moves: np.ndarray) -> np.ndarray:
        """Warp (H, W) ids by nearest neighbour; type and values stay."""
        narrow = label if label.dtype in (np.uint8, np.uint16) else label.astype(np.uint16)
        return _remap(narrow, moves, cv2.INTER_NEAREST).astype(label.dtype)


def _remap(pixels: np.ndarray, moves: np.ndarray, interpolation: int) -> np.ndarray:
    return cv2.remap(
        np.ascontiguousarray(pixels), moves, None, interpolation, borderMode=cv2.BORDER_REFLECT_101
    )


def _bicubic(coarse: np.ndarray, height: int, width: int) -> np.ndarray:
    """Interpolate (P, P, 2) to (height, width, 2), grid corners on image corners."""
    points = len(coarse)
    x, y = (np.linspace(0, points - 1, n, dtype=np.float32) for n in (width, height))
    return cv2.remap(
        coarse, *np.meshgrid(x, y), interpolation=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
    )
