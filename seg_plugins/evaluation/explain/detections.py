"""What each detection met: the table that all explanations of instances are read from."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import hotcoco
import numpy as np

from ...io.masks import to_run_lengths
from ..average_precision import precision_at_recalls
from ..coco_engine import CocoEngine
from ..coco_truth import CocoTruth, box_of
from ..found_instances import FoundInstances


@dataclass(frozen=True)
class DetectionTable:
    """N detections and G annotated objects of a dataset with K classes, at IoU 0.5.

    Attributes:
        image: (N,) int64 position of the image.
        category: (N,) int64 index of the class.
        score: (N,) float64.
        counts: (N,) bool; False in a crowd and beyond the limit of detections.
        matched: (N,) int64 the object that it found, by COCO's rules; -1: none.
        own, own_iou: (N,) the object of its class that it overlaps most, -1: none; the IoU.
        other, other_iou: (N,) the same of other classes. Crowds are neither.
        truth_image, truth_category: (G,) int64 as above.
        crowd: (G,) bool.
        classes: K.
    """

    image: np.ndarray
    category: np.ndarray
    score: np.ndarray
    counts: np.ndarray
    matched: np.ndarray
    own: np.ndarray
    own_iou: np.ndarray
    other: np.ndarray
    other_iou: np.ndarray
    truth_image: np.ndarray
    truth_category: np.ndarray
    crowd: np.ndarray
    classes: int

    @property
    def hit(self) -> np.ndarray:
        """(N,) bool: it found an object."""
        return self.counts & (self.matched >= 0)

    @property
    def mistake(self) -> np.ndarray:
        """(N,) bool: it counts and found none."""
        return self.counts & (self.matched < 0)

    @property
    def found(self) -> np.ndarray:
        """(G,) bool: a detection found it."""
        found = np.zeros(len(self.crowd), bool)
        found[self.matched[self.hit]] = True
        return found

    @property
    def wanted(self) -> np.ndarray:
        """(K,) int64 objects of each class, crowds left out."""
        return np.bincount(self.truth_category[~self.crowd], minlength=self.classes)

    @property
    def order(self) -> np.ndarray:
        """(N,) int64 indices by falling score; ties by image, then as the model gave them."""
        return np.lexsort((np.arange(len(self.image)), self.image, -self.score))


def match_detections(
    truth: CocoTruth, found: FoundInstances, engine: CocoEngine, task: str
) -> DetectionTable:
    """The table of all detections.

    Args:
        truth: of the dataset.
        found: the detections.
        engine: that scored them; its matches count.
        task: ``bbox`` or ``segm``.
    """
    whole = found.whole()
    image, category, score, boxes = whole.positions, whole.categories, whole.scores, whole.boxes
    matched, counts = engine.partners(task)
    annotations = truth.annotations
    truth_image = np.array([p for p, _ in annotations], np.int64)
    truth_category = np.array([a["category_id"] for _, a in annotations], np.int64)
    crowd = np.array([bool(a.get("iscrowd", 0)) for _, a in annotations], bool)
    sizes = [truth.size(position) for position in range(len(truth.image_ids))]
    rles = whole.rle_masks(dict(enumerate(sizes))) if task == "segm" else []
    best = {name: np.full(len(image), -1, np.int64) for name in ("own", "other")}
    overlap = {name: np.zeros(len(image)) for name in best}
    objects = _rows_of(truth_image, len(sizes), ~crowd)
    for position, rows in enumerate(_rows_of(image, len(sizes))):
        there = objects[position]
        if not len(rows) or not len(there):
            continue
        iou = hotcoco.mask.iou(
            [rles[i] for i in rows] if rles else boxes[rows],
            [to_run_lengths(annotations[g][1]["segmentation"], *sizes[position]) for g in there]
            if rles
            else np.array([box_of(annotations[g][1]) for g in there]),
            [False] * len(there),
        )
        same = category[rows][:, None] == truth_category[there][None]
        for name, kind in (("own", same), ("other", ~same)):
            masked = np.where(kind, iou, -1)
            place = masked.argmax(axis=1)
            most = masked[np.arange(len(rows)), place]
            best[name][rows] = np.where(most > 0, there[place], -1)
            overlap[name][rows] = np.maximum(most, 0)
    return DetectionTable(
        image=image,
        category=category,
        score=score,
        counts=counts,
        matched=matched,
        own=best["own"],
        own_iou=overlap["own"],
        other=best["other"],
        other_iou=overlap["other"],
        truth_image=truth_image,
        truth_category=truth_category,
        crowd=crowd,
        classes=len(truth.categories),
    )


def average_precisions(category: np.ndarray, hit: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """(K,) COCO's AP of each class in 0..1; NaN of one without objects.

    Args:
        category: (D,) class of the detections that count, by falling score.
        hit: (D,) bool; what is no hit is a mistake.
        wanted: (K,) objects of each class.
    """
    precision = np.full(len(wanted), np.nan)
    for k in np.flatnonzero(wanted):
        found = hit[category == k][None]
        precision[k] = precision_at_recalls(found, ~found, int(wanted[k])).mean()
    return precision


def _rows_of(image: np.ndarray, images: int, chosen: np.ndarray | None = None) -> list[np.ndarray]:
    """The rows of each of the images, in their order."""
    rows = np.arange(len(image)) if chosen is None else np.flatnonzero(chosen)
    rows = rows[np.argsort(image[rows], kind="stable")]
    ends = np.searchsorted(image[rows], np.arange(images + 1))
    return [rows[a:b] for a, b in pairwise(ends)]
