"""How well two divisions of an image into regions agree: Rand and information scores.

Both are restricted to the foreground of the truth, as in the ISBI 2012 challenge after its
revision (Arganda-Carreras et al., Crowdsourcing the creation of image segmentation algorithms for
connectomics, 2015): pixels outside every true region are left out; a pixel that the proposal gives
to no region counts as a region of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from seg_plugins.ops.segmentation_metrics import pair_counts

import cv2
import numpy as np


def regions(foreground: np.ndarray) -> np.ndarray:
    """(H, W) int32 numbers, from 1, of the 4-connected regions of a binary image; 0 outside."""
    return cv2.connectedComponents((foreground != 0).astype(np.uint8), connectivity=4)[1]


@dataclass(frozen=True)
class Agreement:
    """Agreement of a proposal with the truth; all 1 (or 0 for `information`) when they are equal.

    Attributes:
        rand_split: Probability that two pixels of one true region share a proposed one.
        rand_merge: Probability that two pixels of one proposed region share a true one.
        information_split: Mutual information over the entropy of the proposal.
        information_merge: Mutual information over the entropy of the truth.
        variation: Variation of information, in nats.
    """

    rand_split: float
    rand_merge: float
    information_split: float
    information_merge: float
    variation: float

    @property
    def rand(self) -> float:
        """Foreground-restricted Rand F-score, V^Rand with alpha = 1/2."""
        return _harmonic(self.rand_split, self.rand_merge)

    @property
    def information(self) -> float:
        """Information-theoretic F-score, V^Info with alpha = 1/2."""
        return _harmonic(self.information_split, self.information_merge)


def agreement(truth: np.ndarray, proposal: np.ndarray) -> Agreement | None:
    """Compare two maps of region numbers; None where the truth has no region.

    Args:
        truth: (H, W) integers, 0 outside every region.
        proposal: (H, W) integers, 0 outside every region.
    """
    pairs, counts = pair_counts(truth, proposal)
    inside = pairs[:, 0] != 0
    pairs, counts = pairs[inside], counts[inside].astype(np.float64)
    total = counts.sum()
    if total == 0:
        return None
    alone = counts[pairs[:, 1] == 0].sum()
    joint = counts[pairs[:, 1] != 0]
    _, index = np.unique(pairs[:, 0], return_inverse=True)
    true_sizes = np.bincount(index.reshape(-1), counts)
    _, index = np.unique(pairs[pairs[:, 1] != 0, 1], return_inverse=True)
    found_sizes = np.bincount(index.reshape(-1), joint)

    both = np.square(joint).sum() + alone
    truth_entropy = _entropy(true_sizes, 0, total)
    found_entropy = _entropy(found_sizes, alone, total)
    information = truth_entropy + found_entropy - _entropy(joint, alone, total)
    return Agreement(
        rand_split=both / np.square(true_sizes).sum(),
        rand_merge=both / (np.square(found_sizes).sum() + alone),
        # One region alone has no entropy, and nothing to get wrong.
        information_split=information / found_entropy if found_entropy > 0 else 1.0,
        information_merge=information / truth_entropy if truth_entropy > 0 else 1.0,
        variation=max(0.0, truth_entropy + found_entropy - 2 * information),
    )


def _entropy(sizes: np.ndarray, alone: float, total: float) -> float:
    shares = sizes / total
    return float(-(shares * np.log(shares)).sum() + alone / total * np.log(total))


def _harmonic(a: float, b: float) -> float:
    return 2 * a * b / (a + b) if a + b > 0 else 0.0
