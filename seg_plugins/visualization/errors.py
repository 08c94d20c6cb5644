"""Where a prediction is wrong, painted over a greyed image. All pictures are RGB, uint8."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np

WRONG, MISSED = (214, 39, 40), (214, 39, 40)
INVENTED, FOUND = (31, 119, 220), (60, 160, 60)
_OPACITY = 0.7


def wrong_labels(
    image: np.ndarray, truth: np.ndarray, labels: np.ndarray, ignore_label: int = 255
) -> np.ndarray:
    """Wrong pixels in red; ignored ones stay black.

    Args:
        image: (H, W, 3).
        truth: (H, W) class ids.
        labels: (H, W) class ids.
        ignore_label: id in ``truth`` that stands for "not labelled".
    """
    ignored = truth == ignore_label
    picture = painted(image, {WRONG: (truth != labels) & ~ignored})
    picture[ignored] = 0
    return picture


def wrong_regions(image: np.ndarray, truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Pixels of objects: found in green, missed in red, invented in blue.

    Args:
        image: (H, W, 3).
        truth: (N, H, W) bool masks of all true objects.
        found: (M, H, W) bool masks of the predicted ones.
    """
    there, said = np.any(truth, axis=0), np.any(found, axis=0)
    areas = {FOUND: there & said, MISSED: there & ~said, INVENTED: said & ~there}
    return painted(image, areas)


def painted(image: np.ndarray, areas: Mapping[tuple[int, int, int], np.ndarray]) -> np.ndarray:
    """The greyed image with the (H, W) bool areas in their colours."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    base = cv2.cvtColor(grey // 2 + 90, cv2.COLOR_GRAY2RGB)
    for color, area in areas.items():
        base[area] = np.rint(base[area] * (1 - _OPACITY) + np.array(color) * _OPACITY)
    return base
