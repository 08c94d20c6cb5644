"""Boundary AP: COCO's average precision where overlap is that of masks and of their outlines.

Cheng et al., Boundary IoU, 2021. The engine of :mod:`.coco_engine` knows no overlap of this kind,
so matching and curves are worked out here, image by image.
"""

from __future__ import annotations

from collections.abc import Sequence

from seg_plugins.ops.instance_matching import match_instances
from seg_plugins.ops.run_length import RunLengthMasks, boundary_iou

import numpy as np

from .average_precision import (
    AREA_RANGES,
    IOU_THRESHOLDS,
    RECALL_STEPS,
    PrecisionRecall,
    precision_at_recalls,
)
from .coco_truth import CocoTruth, ImageTruth

# One bit per area range and threshold.
FLAG_BYTES = (len(AREA_RANGES) * len(IOU_THRESHOLDS) + 7) // 8
RECORD = np.dtype(
    [("score", "f8"), ("position", "u4"), ("category", "u2"), ("rank", "u2")]
    + [(kind, "u1", FLAG_BYTES) for kind in ("hit", "miss")]
)


class BoundaryPrecision:
    """Matches each image when it comes and keeps a record of 26 bytes per detection.

    Args:
        truth: with masks.
        limits: the numbers of detections per image and class that count, ascending.
        dilation_ratio: width of the boundary band as a share of the image diagonal.
    """

    def __init__(self, truth: CocoTruth, limits: Sequence[int], dilation_ratio: float) -> None:
        self._truth = truth
        self._limits = tuple(limits)
        self._dilation_ratio = dilation_ratio
        self.reset()

    def reset(self) -> None:
        """Forget everything seen."""
        self._records = bytearray()

    def state(self) -> bytes:
        """The records of this process."""
        return bytes(self._records)

    def add(
        self, position: int, scores: np.ndarray, categories: np.ndarray, masks: RunLengthMasks
    ) -> None:
        """Match the D detections of one image.

        Args:
            position: of the image among :attr:`CocoTruth.image_ids`.
            scores: (D,) float64.
            categories: (D,) int64 indices of :attr:`CocoTruth.class_names`.
            masks: D masks.
        """
        # By category, best first; ties keep the model's order.
        order = np.lexsort((-scores, categories))
        first_of_category = np.searchsorted(categories[order], categories[order])
        ranks = np.arange(len(order)) - first_of_category
        order, ranks = order[ranks < self._limits[-1]], ranks[ranks < self._limits[-1]]
        if not len(order):
            return
        records = np.zeros(len(order), RECORD)
        records["score"] = scores[order]
        records["position"] = position
        records["category"] = categories[order]
        records["rank"] = ranks
        truth = self._truth.image(position)
        overlaps, areas = self._overlaps(masks[order], categories[order], truth)
        ignored = _outside_area_ranges(truth.areas) | truth.crowd
        hit, ignored_hit = match_instances(
            overlaps,
            detection_groups=categories[order],
            truth_groups=truth.categories,
            crowd=truth.crowd,
            truth_ignored=ignored,
            thresholds=IOU_THRESHOLDS,
        )
        # A detection that found nothing and has not the asked-for size does not count either.
        records["hit"] = pack_flags(hit & ~ignored_hit)
        records["miss"] = pack_flags(~hit & ~_outside_area_ranges(areas)[:, None])
        self._records += records.tobytes()

    def _overlaps(
        self, masks: RunLengthMasks, categories: np.ndarray, truth: ImageTruth
    ) -> tuple[np.ndarray, np.ndarray]:
        """(D, G) the smaller of mask and boundary IoU, and (D,) mask areas in pixels."""
        width = max(1, round(self._dilation_ratio * np.hypot(truth.height, truth.width)))
        return boundary_iou(
            masks,
            truth.masks(),
            detection_groups=categories,
            truth_groups=truth.categories,
            crowd=truth.crowd,
            radius=width,
        )

    def curves(self, states: Sequence[bytes]) -> PrecisionRecall:
        """The curves of all processes' records, in any order of the processes."""
        records = np.concatenate([np.frombuffer(part, RECORD) for part in states])
        # COCO breaks ties of the score by image, within an image by the model's order.
        order = np.lexsort((records["position"], -records["score"], records["category"]))
        records = records[order]
        positives = self._positives()
        num_classes, num_areas = positives.shape
        shape = (num_classes, num_areas, len(self._limits))
        precision = -np.ones((len(IOU_THRESHOLDS), len(RECALL_STEPS), *shape))
        recall = -np.ones((len(IOU_THRESHOLDS), *shape))
        bounds = np.searchsorted(records["category"], np.arange(num_classes + 1))
        for k in range(num_classes):
            of_class = records[bounds[k] : bounds[k + 1]]
            hit, miss = unpack_flags(of_class["hit"]), unpack_flags(of_class["miss"])
            for area in np.flatnonzero(positives[k]):
                for m, limit in enumerate(self._limits):
                    counts = of_class["rank"] < limit
                    hits, misses = hit[area][:, counts], miss[area][:, counts]
                    wanted = positives[k, area]
                    recall[:, k, area, m] = hits.sum(axis=1) / wanted
                    precision[:, :, k, area, m] = precision_at_recalls(hits, misses, wanted)
        return PrecisionRecall(precision, recall, self._limits)

    def _positives(self) -> np.ndarray:
        """(K, A) int64: annotations that count, per class and area range."""
        counts = np.zeros((len(self._truth.categories), len(AREA_RANGES)), np.int64)
        for position in range(len(self._truth.image_ids)):
            truth = self._truth.image(position)
            for area, outside in enumerate(_outside_area_ranges(truth.areas)):
                np.add.at(counts[:, area], truth.categories[~(outside | truth.crowd)], 1)
        return counts


def pack_flags(flags: np.ndarray) -> np.ndarray:
    """(A, T, D) bool as (D, FLAG_BYTES) uint8."""
    areas, steps, detections = flags.shape
    return np.packbits(flags.reshape(areas * steps, detections), axis=0).T


def unpack_flags(packed: np.ndarray) -> np.ndarray:
    """The inverse of :func:`pack_flags`."""
    areas, steps = len(AREA_RANGES), len(IOU_THRESHOLDS)
    bits = np.unpackbits(np.ascontiguousarray(packed.T), axis=0)[: areas * steps]
    return bits.reshape(areas, steps, len(packed)).astype(bool)


def _outside_area_ranges(areas: np.ndarray) -> np.ndarray:
    """(A, N) bool: which of N areas lie outside each range."""
    return (areas < AREA_RANGES[:, :1]) | (areas > AREA_RANGES[:, 1:])
