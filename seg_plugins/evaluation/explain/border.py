"""Semantic errors by the distance of a pixel to the nearest other class of the truth."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from ..confusion import divide

#: Upper ends of the bands, in pixels, ends included; the last band is beyond them.
WIDTHS = (1, 2, 5, 10, 20)


class BorderErrors:
    """Sums labelled and wrong pixels by distance over images."""

    def __init__(self) -> None:
        self.labelled = np.zeros(len(WIDTHS) + 1, np.int64)
        self.wrong = np.zeros(len(WIDTHS) + 1, np.int64)

    def add(self, labels: np.ndarray, truth: np.ndarray, void: int) -> None:
        """Add one image.

        Args:
            labels: (H, W) predicted classes.
            truth: (H, W) classes 0..void-1, or `void`: not labelled, which is no border.
            void: the value that is no class.
        """
        known = truth != void
        band = np.searchsorted(WIDTHS, border_distance(truth, void)[known], side="left")
        wrong = labels[known] != truth[known]
        self.labelled += np.bincount(band, minlength=len(WIDTHS) + 1)
        self.wrong += np.bincount(band[wrong], minlength=len(WIDTHS) + 1)

    def table(self) -> list[dict[str, Any]]:
        """For each band ``up_to`` pixels (None: beyond), ``pixels``, ``wrong``, and in percent
        ``error``, of its pixels, and ``share``, of all errors (None of nothing).
        """
        error = 100 * divide(self.wrong, self.labelled)
        share = 100 * divide(self.wrong, self.wrong.sum())
        columns = zip((*WIDTHS, None), self.labelled, self.wrong, error, share, strict=True)
        names = ("up_to", "pixels", "wrong", "error", "share")
        return [dict(zip(names, row, strict=True)) for row in columns]


def border_distance(truth: np.ndarray, void: int) -> np.ndarray:
    """(H, W) float32 Euclidean distance in pixels to the nearest pixel of another class.

    1 for pixels with such a neighbour, infinite where an image has one class alone or no label.
    """
    distance = np.full(truth.shape, np.inf, np.float32)
    classes = np.unique(truth[truth != void])
    if len(classes) < 2:
        return distance
    for k in classes:
        own = truth == k
        others = ~own & (truth != void)
        away = cv2.distanceTransform((~others).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        distance[own] = away[own]
    return distance
