"""U-Net's weight map: the background between touching cells counts most."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

__all__ = ["border_weights"]


def border_weights(
    label: np.ndarray,
    *,
    foreground: Sequence[int] = (1,),
    w0: float = 10.0,
    sigma: float = 5.0,
    class_weights: Sequence[float] = (),
) -> np.ndarray:
    """The pixel weights of Ronneberger et al. 2015, equation 2.

    w = w_c + w0 exp(-(d1 + d2)^2 / (2 sigma^2)), where d1 and d2 are a background pixel's
    distances to the nearest and the second nearest cell; cells keep w_c. A cell is a connected
    component (by edges) of the foreground. With fewer than two cells the second term is 0.

    Args:
        label: (H, W) class ids.
        foreground: the classes that cells consist of.
        w0: weight of the second term.
        sigma: its reach, in pixels.
        class_weights: w_c by class id, for balance; empty gives 1 everywhere. Ids without an
            entry, such as the ignore label, get 1.

    Returns:
        (H, W) float32.
    """
    weights = np.ones(label.shape, np.float32)
    for class_id, weight in enumerate(class_weights):
        weights[label == class_id] = weight
    cells = np.isin(label, list(foreground))
    count, components, stats, _ = cv2.connectedComponentsWithStats(
        cells.astype(np.uint8), connectivity=4
    )
    if count < 3:
        return weights
    # Beyond the reach the exponential is below 1e-9, so that each cell matters in its
    # neighbourhood only: the cost is that of the cells' areas, not of cells times pixels.
    reach = int(np.ceil(6.5 * sigma)) + 1
    first = np.full(label.shape, np.inf, np.float32)
    second = first.copy()
    height, width = label.shape
    for cell in range(1, count):
        x, y, w, h = stats[cell, :4]
        window = np.s_[
            max(y - reach, 0) : min(y + h + reach, height),
            max(x - reach, 0) : min(x + w + reach, width),
        ]
        outside = (components[window] != cell).astype(np.uint8)
        distance = cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        nearest, next_nearest = first[window], second[window]
        next_nearest[...] = np.minimum(next_nearest, np.maximum(nearest, distance))
        nearest[...] = np.minimum(nearest, distance)
    background = ~cells & np.isfinite(second)
    total = (first + second)[background]
    weights[background] += np.float32(w0) * np.exp(-(total**2) / np.float32(2 * sigma**2))
    return weights
