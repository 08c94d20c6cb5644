"""Resamples of images as weights: how often each image was drawn."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

#: Numbers that a table of one chunk of resamples may hold: 8 bytes each.
_CHUNK = 1 << 21


def resamples(images: int, samples: int, seed: int, rows: int) -> Iterator[np.ndarray]:
    """Draws of the images with replacement, in chunks.

    The draws depend on `images`, `samples` and `seed` alone.

    Args:
        images: I.
        samples: how many resamples, S.
        seed: of the draws.
        rows: of the largest table that is made for a resample; it sets the size of the chunks.

    Yields:
        (I, B) float64: how often each image was drawn; the B of all chunks add up to S.
    """
    generator = np.random.default_rng(seed)
    width = max(1, min(samples, _CHUNK // max(1, images, rows)))
    for start in range(0, samples, width):
        count = min(width, samples - start)
        weights = np.empty((images, count))
        for column in range(count):
            drawn = generator.integers(images, size=images)
            weights[:, column] = np.bincount(drawn, minlength=images)
        yield weights


def class_sums(
    values: np.ndarray, image: np.ndarray, category: np.ndarray, classes: int, weights: np.ndarray
) -> np.ndarray:
    """(K, B) sums by class of values that belong to an image and a class.

    The order of the terms is that of the rows, whatever B is.

    Args:
        values: (N,) one per row.
        image: (N,) position of the row's image.
        category: (N,) class of the row, ascending.
        classes: K.
        weights: (I, B).
    """
    sums = np.zeros((classes, weights.shape[1]))
    if len(values):
        present, starts = np.unique(category, return_index=True)
        sums[present] = np.add.reduceat(values[:, None] * weights[image], starts, axis=0)
    return sums


def centred_interval(
    value: float, samples: np.ndarray, confidence: float = 0.95
) -> tuple[float, float]:
    """`value` and around it the middle share `confidence` of (S,) samples; NaN, NaN of none.

    The samples are moved so that their mean is `value`. AP of classes with few objects is higher in
    resamples, whose repeated images agree with each other: left where they are, the middle 95% may
    lie above the very figure that they are to describe.
    """
    if not len(samples):
        return float("nan"), float("nan")
    tail = (1 - confidence) / 2
    low, high = np.quantile(samples, [tail, 1 - tail]) - samples.mean() + value
    return float(low), float(high)
