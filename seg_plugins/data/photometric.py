"""Random colours: changes of pixel values that leave every pixel in its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

__all__ = ["Blur", "ColorJitter", "Noise", "Photometric", "ValueRange"]


class Photometric(Protocol):
    """A random change of pixel values."""

    def __call__(self, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
        """Change an image (H, W, C); the result may share its memory."""


@dataclass(frozen=True)
class ColorJitter:
    """Brightness, contrast, saturation and hue, as in SSD (Liu et al. 2016).

    Each of the four is applied with probability 1/2; contrast comes before or after the two
    changes of colour. Eight-bit images only; images without three channels keep their colours.

    Attributes:
        image_format: "BGR" or "RGB", the order of the channels.
        brightness: largest shift, in grey levels.
        contrast, saturation: range of the factor.
        hue: largest shift, in degrees on a circle of 180.
    """

    image_format: str = "BGR"
    brightness: float = 32
    contrast: tuple[float, float] = (0.5, 1.5)
    saturation: tuple[float, float] = (0.5, 1.5)
    hue: float = 18

    def __call__(self, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
        """Change the colours of a uint8 image."""
        if image.dtype != np.uint8:
            return image
        levels = np.arange(256, dtype=np.float32)
        on = rng.random(4) < 0.5
        shift = rng.uniform(-self.brightness, self.brightness)
        factor = rng.uniform(*self.contrast)
        saturation, hue = rng.uniform(*self.saturation), rng.uniform(-self.hue, self.hue)
        contrast_first = rng.random() < 0.5
        if on[0]:
            image = _map_levels(image, levels + shift)
        if on[1] and contrast_first:
            image = _map_levels(image, levels * factor)
        if (on[2] or on[3]) and image.shape[2] == 3:
            image = self._shift_color(image, saturation if on[2] else 1, hue if on[3] else 0)
        if on[1] and not contrast_first:
            image = _map_levels(image, levels * factor)
        return image

    def _shift_color(self, image: np.ndarray, saturation: float, hue: float) -> np.ndarray:
        levels = np.arange(256, dtype=np.float32)
        table = np.stack(
            [(np.rint(levels + hue) % 180), np.clip(np.rint(levels * saturation), 0, 255), levels],
            axis=1,
        )
        bgr = self.image_format == "BGR"
        hsv = cv2.cvtColor(
            np.ascontiguousarray(image), cv2.COLOR_BGR2HSV if bgr else cv2.COLOR_RGB2HSV
        )
        hsv = cv2.LUT(hsv, table.astype(np.uint8)[:, None])
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR if bgr else cv2.COLOR_HSV2RGB)


def _map_levels(image: np.ndarray, levels: np.ndarray) -> np.ndarray:
    table = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    # OpenCV drops a last axis of length 1.
    return cv2.LUT(np.ascontiguousarray(image), table).reshape(image.shape)


@dataclass(frozen=True)
class Blur:
    """Gaussian blur of a random strength, for every other image.

    Attributes:
        max_sigma: largest standard deviation, in pixels.
    """

    max_sigma: float

    def __call__(self, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
        """Blur, or not; any depth and number of channels."""
        on, sigma = rng.random() < 0.5, rng.uniform(0.1, max(self.max_sigma, 0.1))
        if not on:
            return image
        return cv2.GaussianBlur(np.ascontiguousarray(image), (0, 0), sigma).reshape(image.shape)


@dataclass(frozen=True)
class Noise:
    """Gaussian noise of a random strength, for every other image.

    Attributes:
        max_sigma: largest standard deviation, in the unit of the pixel values.
    """

    max_sigma: float

    def __call__(self, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
        """Add noise, or not; integer images are rounded and clipped to their range."""
        on, sigma = rng.random() < 0.5, rng.uniform(0, self.max_sigma)
        if not on:
            return image
        noisy = image + rng.standard_normal(image.shape, dtype=np.float32) * np.float32(sigma)
        if np.issubdtype(image.dtype, np.integer):
            limits = np.iinfo(image.dtype)
            noisy = np.clip(np.rint(noisy), limits.min, limits.max)
        return noisy.astype(image.dtype)


@dataclass(frozen=True)
class ValueRange:
    """Scale a range of stored values to 0..255, such as a CT window; clips what lies outside.

    Attributes:
        low, high: the values that become 0 and 255.
    """

    low: float
    high: float

    def __call__(self, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
        """Scale; gives float32."""
        scaled = (image.astype(np.float32) - self.low) * (255 / (self.high - self.low))
        return np.clip(scaled, 0, 255)
