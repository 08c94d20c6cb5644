"""Sums of fractions that do not depend on their order.

Floating-point sums change in their last digits with the order of the terms, so a mean over images
would depend on how the images were split over processes. Scores between 0 and 1 are therefore
summed as integers.
"""

from __future__ import annotations

SCALE = 1 << 53


def to_fixed(score: float) -> int:
    """A score in 0..1 as an integer; exact from 0.5 on, to 2**-53 below."""
    return int(score * SCALE)


def from_fixed(total: int) -> float:
    """A sum of :func:`to_fixed` values as a float, correctly rounded."""
    return total / SCALE
