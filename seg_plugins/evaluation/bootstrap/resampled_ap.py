"""COCO's AP of many resamples of the images at once, as pycocotools has it of the rebuilt dataset.

In the rebuilt dataset an image that was drawn n times stands n times, under ids that follow each
other. Its detections come n times in a row of equal scores. What of this the curve shows:

- A detection that is alone with its image and score is one step of n hits, or n mistakes. The steps
  between do not matter: the curve is the best precision at a recall *or a higher one*, and among n
  equal hits the last has the best.
- Several detections of one image, class and score alternate: the first, the second, the first, the
  second, ... Such a block is written out, copy after copy; a copy counts in the resamples that drew
  the image at least so often.
"""

from __future__ import annotations

import itertools

import numpy as np

from ..average_precision import IOU_THRESHOLDS, RECALL_STEPS
from ..coco_matches import Matches

# Whether a recall step is above the quotient that it stands for, by the rounding of both.
_ABOVE = np.arange(len(RECALL_STEPS)) / (len(RECALL_STEPS) - 1) < RECALL_STEPS


def resampled_ap(matches: Matches, wanted: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(T, B) AP in 0..1 at each of T overlaps, over the classes with an object; NaN without any.

    Args:
        matches: of I images.
        wanted: (K, B) objects of each class in each resample.
        weights: (I, B) how often each image was drawn.
    """
    sums = np.zeros((len(IOU_THRESHOLDS), weights.shape[1]))
    bounds = np.searchsorted(matches.category, np.arange(len(wanted) + 1))
    for k, (start, end) in enumerate(itertools.pairwise(bounds)):
        if wanted[k].any():
            sums += _class_ap(_part(matches, start, end), wanted[k], weights)
    classes = np.count_nonzero(wanted, axis=0)
    return np.where(classes > 0, sums, np.nan) / np.maximum(classes, 1)


def _part(matches: Matches, start: int, end: int) -> Matches:
    return Matches(*(column[start:end] for column in vars(matches).values()))


def _class_ap(found: Matches, wanted: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(T, B) AP of one class; 0 where it has no object, arguments as of :func:`resampled_ap`."""
    ap = np.zeros((len(IOU_THRESHOLDS), weights.shape[1]))
    rows, drawn = _written_out(found, weights)
    hits_anywhere = np.flatnonzero(found.hit[rows])
    if not len(hits_anywhere):
        return ap
    # Behind the last hit no precision is read.
    rows, drawn = rows[: hits_anywhere[-1] + 1], drawn[: hits_anywhere[-1] + 1]
    # Detections up to each hit, ignored ones included.
    until = np.concatenate([[0], hits_anywhere[:-1] + 1])
    seen = np.cumsum(np.add.reduceat(drawn, until, axis=0), axis=0)
    for step in range(len(IOU_THRESHOLDS)):
        hit, miss = (flags[rows] for flags in found.at(step))
        places = np.flatnonzero(hit)
        if not len(places):
            continue
        counted = seen[np.searchsorted(hits_anywhere, places)]
        ignored = np.flatnonzero(~(hit | miss))
        if len(ignored):
            before = np.zeros((len(ignored) + 1, drawn.shape[1]))
            np.cumsum(drawn[ignored], axis=0, out=before[1:])
            counted = counted - before[np.searchsorted(ignored, places)]
        hits = np.cumsum(drawn[places], axis=0)
        precision = hits / (counted + np.spacing(1))  # as pycocotools
        best = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
        # The recall steps that a hit is the first to reach have the best precision from it on.
        new = _new_steps(hits, np.maximum(wanted, 1))
        ap[step] = np.einsum("pb,pb->b", best, new) / len(RECALL_STEPS)
    return np.where(wanted > 0, ap, 0)


def _written_out(found: Matches, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which detection each row is, (P,), and how often it counts in each resample, (P, B)."""
    first = np.flatnonzero(~found.tied)
    size = np.diff(first, append=len(found.tied))
    copies = np.where(size > 1, weights.max(axis=1, initial=0)[found.image[first]], 1).astype(int)
    block = np.repeat(np.arange(len(first)), size * copies)
    start = np.cumsum(size * copies) - size * copies
    offset = np.arange(len(block)) - start[block]
    rows = first[block] + offset % size[block]
    drawn = weights[found.image[rows]]
    several = np.flatnonzero(size[block] > 1)
    copy = offset[several] // size[block[several]] + 1
    drawn[several] = drawn[several] >= copy[:, None]
    return rows, drawn


def _new_steps(hits: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """(P, B) how many recall steps each row is the first to reach.

    Args:
        hits: (P, B) found up to each row.
        wanted: (B,) at least 1.
    """
    last = len(RECALL_STEPS) - 1
    hundredths = hits * last
    hundredths /= wanted
    reached = np.floor(hundredths)
    # Only where recall is a whole step does rounding decide: 0.35 of the steps is above 35 / 100.
    whole = np.flatnonzero(hundredths == reached)
    flat = reached.reshape(-1)
    flat[whole] -= _ABOVE[flat[whole].astype(np.int64)]
    return np.diff(reached, axis=0, prepend=-1.0)
