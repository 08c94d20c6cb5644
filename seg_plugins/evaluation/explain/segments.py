"""Why panoptic segments were not found: merged, split, of another class, badly outlined, missed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from seg_plugins.ops.segmentation_metrics import pair_counts

import numpy as np

from ..panoptic_quality import VOID

#: In the order in which they are looked for; the first that holds is given.
REASONS = ("wrong class", "merged", "split", "inaccurate outline", "missed")
#: Share of a true segment that lies in one prediction which holds another one as well (merged).
_INSIDE = 0.5
#: Share of a true segment that a part has at least to be one of those it is split into.
_PART = 0.1
#: Overlap from which the outline is what is wrong.
_TOUCHED = 0.1


@dataclass
class ImageSegments:
    """True and predicted segments of one image.

    Args:
        truth_ids: (H, W) segment ids or (H, W, 3) colours of COCO's PNG; 0 is void.
        truth: COCO's ``segments_info``.
        found_ids: (H, W) predicted ids; 0 is void.
        found: ``id`` and ``category_id`` of each.
    """

    truth_ids: np.ndarray
    truth: Sequence[Mapping[str, Any]]
    found_ids: np.ndarray
    found: Sequence[Mapping[str, Any]]
    shared: dict[tuple[int, int], int] = field(init=False)

    def __post_init__(self) -> None:
        pairs, counts = pair_counts(self.truth_ids, self.found_ids)
        self.shared = dict(zip(map(tuple, pairs.tolist()), counts.tolist(), strict=True))
        self._true_area: dict[int, int] = {}
        self._found_area: dict[int, int] = {}
        for (true, guess), count in self.shared.items():
            self._true_area[true] = self._true_area.get(true, 0) + count
            self._found_area[guess] = self._found_area.get(guess, 0) + count
        # As in PQ: the areas of the truth are those of its file.
        self._true_area |= {s["id"]: s["area"] for s in self.truth if "area" in s}
        self._category = {s["id"]: s["category_id"] for s in self.found}
        self._objects = {s["id"]: s for s in self.truth if not s.get("iscrowd", 0)}

    def area(self, segment: Mapping[str, Any]) -> int:
        """Pixels of a true segment."""
        return self._true_area[segment["id"]]

    def not_found(self) -> list[tuple[Mapping[str, Any], str, list[int]]]:
        """Each true segment that PQ counts as missed: it, the reason, the predictions involved."""
        entries = []
        for number, segment in self._objects.items():
            overlaps = {
                guess: self._iou(number, guess)
                for (true, guess) in self.shared
                if true == number and guess in self._category
            }
            own = {
                g: iou for g, iou in overlaps.items() if self._category[g] == segment["category_id"]
            }
            if any(iou > 0.5 for iou in own.values()):
                continue
            entries.append((segment, *self._reason(number, overlaps, own)))
        return entries

    def _reason(
        self, number: int, overlaps: Mapping[int, float], own: Mapping[int, float]
    ) -> tuple[str, list[int]]:
        others = [g for g, iou in overlaps.items() if g not in own and iou > 0.5]
        if others:
            return "wrong class", others
        for guess in own:
            if self._within(number, guess) >= _INSIDE and len(self._held(guess)) > 1:
                return "merged", [guess]
        parts = [
            g
            for g in own
            if self._within(number, g) >= _PART
            and self.shared[number, g] >= _INSIDE * self._found_area[g]
        ]
        if len(parts) > 1:
            return "split", parts
        near = [g for g, iou in own.items() if iou >= _TOUCHED]
        return ("inaccurate outline", near) if near else ("missed", [])

    def _held(self, guess: int) -> list[int]:
        """The true segments of a prediction's class of which it has at least half."""
        return [
            true
            for (true, g) in self.shared
            if g == guess
            and true in self._objects
            and self._objects[true]["category_id"] == self._category[guess]
            and self._within(true, guess) >= _INSIDE
        ]

    def _within(self, true: int, guess: int) -> float:
        return self.shared[true, guess] / self._true_area[true]

    def _iou(self, true: int, guess: int) -> float:
        count = self.shared[true, guess]
        void = self.shared.get((VOID, guess), 0)
        return count / (self._found_area[guess] + self._true_area[true] - count - void)
