"""Panoptic quality of one image and of a data set, by the rules of panopticapi.

Kirillov et al., Panoptic Segmentation, 2019, section 4; crowd and void as in section 4.1 and the
reference implementation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from seg_plugins.ops.segmentation_metrics import pair_counts

import numpy as np

from .confusion import divide
from .errors import EvaluationError
from .fixed_point import from_fixed, to_fixed

VOID = 0


class PanopticCounts:
    """True and false positives, false negatives and summed overlap per category.

    Args:
        category_ids: the categories, in the order of the results.
    """

    def __init__(self, category_ids: Sequence[int]) -> None:
        self.index = {category: i for i, category in enumerate(category_ids)}
        self.tp = np.zeros(len(self.index), np.int64)
        self.fp = np.zeros(len(self.index), np.int64)
        self.fn = np.zeros(len(self.index), np.int64)
        # Fixed-point overlaps, as Python integers: they outgrow 64 bits.
        self.iou = np.zeros(len(self.index), object)

    def state(self) -> tuple[np.ndarray, ...]:
        """Arrays that add up over processes."""
        return self.tp, self.fp, self.fn, self.iou

    def merge(self, other: PanopticCounts) -> None:
        """Add the counts of other images."""
        self.set_state([a + b for a, b in zip(self.state(), other.state(), strict=True)])

    def set_state(self, state: Sequence[np.ndarray]) -> None:
        """Take over summed states."""
        self.tp, self.fp, self.fn, self.iou = state

    def add(
        self,
        truth_ids: np.ndarray,
        truth_segments: Sequence[Mapping[str, Any]],
        found_ids: np.ndarray,
        found_segments: Sequence[Mapping[str, Any]],
    ) -> None:
        """Add one image.

        Args:
            truth_ids: (H, W) segment ids, or the (H, W, 3) bytes of a COCO panoptic PNG; 0 is
                void.
            truth_segments: COCO ``segments_info``: id, category_id, iscrowd and, where the file
                has it, area.
            found_ids: (H, W) predicted segment ids; 0 is void.
            found_segments: id and category_id of every predicted segment.

        Raises:
            EvaluationError: an id of a map that its segments lack, or the reverse, or an unknown
                category.
        """
        pairs, counts = pair_counts(truth_ids, found_ids)
        shared = dict(zip(map(tuple, pairs.tolist()), counts.tolist(), strict=True))
        found_areas: dict[int, int] = {}
        true_areas: dict[int, int] = {}
        for (truth, found), count in shared.items():
            found_areas[found] = found_areas.get(found, 0) + count
            true_areas[truth] = true_areas.get(truth, 0) + count
        found_category = self._categories(found_segments, "predicted")
        true_category = self._categories(truth_segments, "ground-truth")
        _check_ids(found_areas, found_category, "predicted")
        # The reference takes the truth's areas from its file.
        true_areas |= {s["id"]: s["area"] for s in truth_segments if "area" in s}
        crowds = {s["id"] for s in truth_segments if s.get("iscrowd", 0)}

        matched_truth, matched_found = set(), set()
        for (truth, found), count in shared.items():
            category = true_category.get(truth)
            if category is None or category != found_category.get(found) or truth in crowds:
                continue
            void = shared.get((VOID, found), 0)
            iou = count / (found_areas[found] + true_areas[truth] - count - void)
            if iou > 0.5:
                self.tp[self.index[category]] += 1
                self.iou[self.index[category]] += to_fixed(iou)
                matched_truth.add(truth)
                matched_found.add(found)

        crowd_of_category = {}
        for truth, category in true_category.items():
            if truth in crowds:
                crowd_of_category[category] = truth
            elif truth not in matched_truth:
                self.fn[self.index[category]] += 1
        for found, category in found_category.items():
            if found in matched_found:
                continue
            # What lies mostly in void or in a crowd of its category is no mistake.
            excused = shared.get((VOID, found), 0)
            if category in crowd_of_category:
                excused += shared.get((crowd_of_category[category], found), 0)
            if excused / found_areas[found] <= 0.5:
                self.fp[self.index[category]] += 1

    def by_class(self) -> list[list[float]]:
        """[index of the category, tp, fp, fn, summed overlap] of each category with any."""
        seen = np.flatnonzero(self.tp + self.fp + self.fn).tolist()
        counts = (self.tp, self.fp, self.fn)
        return [[i, *(int(c[i]) for c in counts), from_fixed(self.iou[i])] for i in seen]

    def quality(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """PQ, SQ and RQ per category in 0..1; NaN where it neither occurs nor is predicted."""
        overlap = np.array([from_fixed(total) for total in self.iou], float)
        seen = self.tp + 0.5 * self.fp + 0.5 * self.fn
        matched = np.where(self.tp > 0, self.tp, 1)
        sq = np.where(seen > 0, overlap / matched, np.nan)
        return divide(overlap, seen), sq, divide(self.tp, seen)

    def _categories(self, segments: Sequence[Mapping[str, Any]], what: str) -> dict[int, int]:
        categories = {}
        for segment in segments:
            if segment["category_id"] not in self.index:
                raise EvaluationError(
                    f"{what} segment {segment['id']} has the unknown category "
                    f"{segment['category_id']}."
                )
            if segment["id"] in categories:
                raise EvaluationError(f"{what} segment {segment['id']} is listed twice.")
            categories[segment["id"]] = segment["category_id"]
        return categories


def _check_ids(areas: Mapping[int, int], categories: Mapping[int, int], what: str) -> None:
    unlisted = sorted(set(areas) - set(categories) - {VOID})
    if unlisted:
        raise EvaluationError(f"{what} segment {unlisted[0]} is in the map, not in segments_info.")
    empty = sorted(set(categories) - set(areas))
    if empty:
        raise EvaluationError(f"{what} segment {empty[0]} is in segments_info, not in the map.")
