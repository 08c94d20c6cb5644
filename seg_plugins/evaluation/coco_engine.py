"""COCO's matching and curves: hotcoco's, over all images, or part by part where they are many.

hotcoco (MIT, https://github.com/derekallman/hotcoco) gives pycocotools' arrays bit for bit. It is
handed detections as arrays: rows of numbers and, for masks, run lengths.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import hotcoco
import numpy as np

from .average_precision import AREA_RANGES, IOU_THRESHOLDS, RECALL_STEPS, PrecisionRecall
from .coco_matches import Matches
from .coco_truth import CocoTruth
from .found_instances import FoundInstances, FoundPart

#: Detections that are scored at once; each takes 1 to 2 KB meanwhile.
PART = 2**16
# What the engine calls detections that found an object, and those that are mistakes.
_KINDS = ("tp", "fp")


class CocoEngine:
    """Scores the detections of a dataset against its truth.

    Matching is done within an image, so more than :data:`PART` detections are matched part by part;
    of each part the engine's stream keeps what curves need.

    Args:
        truth: with annotations.
        found: the detections.
        limits: the numbers of detections per image and class that count, ascending.
    """

    def __init__(self, truth: CocoTruth, found: FoundInstances, limits: Sequence[int]) -> None:
        self._truth = truth
        self._found = found
        self._limits = list(limits)
        self.with_masks = found.with_masks and truth.has_masks
        self._only = self._part(found.whole()) if len(found) <= PART else None

    def curves(self, task: str) -> PrecisionRecall:
        """The curves of `task`: ``bbox``, or ``segm`` where there are masks."""
        if self._only is None:
            run = self._streamed[task]
        else:
            run = self._only.run(task)
        result: Any = run.eval
        return PrecisionRecall(result["precision"], result["recall"], tuple(self._limits))

    def flags(self, task: str, steps: int = len(IOU_THRESHOLDS)) -> tuple[np.ndarray, np.ndarray]:
        """(N,) uint16 each of the N detections: hits and mistakes among objects of all sizes.

        Bit t is of ``IOU_THRESHOLDS[t]``. A detection in a crowd is neither.

        Args:
            task: as of :meth:`curves`.
            steps: how many of the overlaps, from 0.5 on.
        """
        parts = [part.flags(task, steps) for part in self._parts()]
        hit, miss = (np.concatenate(flags) for flags in zip(*parts, strict=True))
        return hit, miss

    def image_counts(self, flags: tuple[np.ndarray, np.ndarray], confidence: float) -> np.ndarray:
        """(I, 3) int64: hits, mistakes and missed truths of each image at IoU 0.5.

        Args:
            flags: what :meth:`flags` gave.
            confidence: the score from which a detection counts. It does not change how the
                others match: the surer one always chooses first.
        """
        found = self._found.numbers()
        sure, images = found.scores >= confidence, found.positions
        number = len(self._truth.image_ids)
        counts = np.zeros((number, 3), np.int64)
        for column, flag in enumerate(flags):
            counts[:, column] = np.bincount(images[sure & (flag & 1 > 0)], minlength=number)
        counts[:, 2] = self._truth.counted - counts[:, 0]
        return counts

    def matches(self, flags: tuple[np.ndarray, np.ndarray]) -> Matches:
        """The hits and mistakes of :meth:`flags`, in the order that AP needs."""
        found = self._found.numbers()
        return Matches.sorted(found.positions, found.categories, found.scores, *flags)

    def partners(self, task: str) -> tuple[np.ndarray, np.ndarray]:
        """What each of the N detections met at IoU 0.5.

        Args:
            task: as of :meth:`curves`.

        Returns:
            (N,) int64 index in :attr:`CocoTruth.annotations`, -1 of none; and (N,) bool, whether
            it counts: not in a crowd, and within the limit of detections.
        """
        parts = [part.partners(task) for part in self._parts()]
        truth, counts = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        return truth, counts

    @cached_property
    def _streamed(self) -> dict[str, hotcoco.COCOeval]:
        """The accumulated runs of all tasks, in one pass over the parts."""
        classes = [{"id": k + 1, "name": name} for k, name in enumerate(self._truth.class_names)]
        streams = {}
        for task in ("bbox", "segm")[: 1 + self.with_masks]:
            params = hotcoco.Params(task)
            _set(params, self._limits)
            streams[task] = hotcoco.StreamingEval(classes, task, params=params)
        for part in self._parts():
            for task, stream in streams.items():
                part.add_to(stream, task)
        runs = {task: stream.finalize() for task, stream in streams.items()}
        for run in runs.values():
            run.accumulate()
        return runs

    def _parts(self) -> Iterator[_Part]:
        """All images; those without detections come last."""
        if self._only is not None:
            yield self._only
            return
        left = np.ones(len(self._truth.image_ids), bool)
        for found in self._found.parts(PART):
            positions = np.unique(found.positions)
            left[positions] = False
            yield self._part(found, positions.tolist())
        rest = np.flatnonzero(left).tolist()
        for first in range(0, len(rest), PART):
            yield self._part(FoundPart(), rest[first : first + PART])

    def _part(self, found: FoundPart, positions: Sequence[int] | None = None) -> _Part:
        return _Part(self._truth, found, positions, self._limits, self.with_masks)


class _Part:
    """Some images, all of their annotations and detections."""

    def __init__(
        self,
        truth: CocoTruth,
        found: FoundPart,
        positions: Sequence[int] | None,
        limits: list[int],
        with_masks: bool,
    ) -> None:
        self._found = found
        self._limits = limits
        self._masks: list[Any] | None = None
        if with_masks:
            sizes = {p: truth.size(p) for p in np.unique(found.positions).tolist()}
            self._masks = found.rle_masks(sizes)
        self._truth = truth.engine_dataset(positions)
        self._runs: dict[str, hotcoco.COCOeval] = {}

    def run(self, task: str) -> hotcoco.COCOeval:
        """The engine, with all of its arrays."""
        if task not in self._runs:
            self._runs[task] = self._evaluated(task)
            self._runs[task].accumulate()
        return self._runs[task]

    def add_to(self, stream: hotcoco.StreamingEval, task: str) -> None:
        """Match the detections and leave what came of it to the stream."""
        truth, rows = self._truth_dicts, self._found.rows
        if task == "segm":
            # To a stream the area of a row is that of its box, at which matching of masks does not
            # look.
            rows = rows.copy()
            rows[:, 1:3], rows[:, 3], rows[:, 4] = 0, self._found.records["area"], 1
        masks = self._masks if task == "segm" else None
        stream.update(truth["images"], truth["annotations"], rows, segmentation=masks)

    def flags(self, task: str, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """As of the engine."""
        run = self._evaluated(task)
        flags = [np.zeros(len(self._found.records), np.uint16) for _ in _KINDS]
        for step, threshold in enumerate(IOU_THRESHOLDS[:steps].tolist()):
            # Detections that met an ignored truth are in neither of the two.
            status = run.image_diagnostics(iou_thr=threshold)["dt_status"]
            ids = np.fromiter(status.keys(), np.int64, len(status))
            for kind, flag in zip(_KINDS, flags, strict=True):
                chosen = np.fromiter((k == kind for k in status.values()), bool, len(status))
                flag[ids[chosen] - 1] |= np.uint16(1 << step)
        return flags[0], flags[1]

    def partners(self, task: str) -> tuple[np.ndarray, np.ndarray]:
        """As of the engine."""
        found = self._evaluated(task).image_diagnostics(iou_thr=IOU_THRESHOLDS[0])
        truth = np.full(len(self._found.records), -1, np.int64)
        counts = np.zeros(len(truth), bool)
        counts[[i - 1 for i, kind in found["dt_status"].items() if kind in _KINDS]] = True
        for detection, annotation in found["dt_match"].items():
            truth[detection - 1] = annotation - 1
        return truth, counts

    @cached_property
    def _truth_dicts(self) -> dict[str, Any]:
        return self._truth.dataset

    def _evaluated(self, task: str) -> hotcoco.COCOeval:
        if task in self._runs:
            return self._runs[task]
        rows = self._found.rows
        masks = self._masks if task == "segm" else None
        found = self._truth.load_res(rows, segmentation=masks)
        if masks:
            # As Detectron2: boxes are sorted into sizes by their own area, masks by theirs.
            areas = self._found.records["area"].astype(np.float64)
            found.update_anns(ids=np.arange(1, len(rows) + 1), area=areas)
        run = hotcoco.COCOeval(self._truth, found, task)
        _set(run.params, self._limits)
        run.evaluate()
        return run


def _set(params: hotcoco.Params, limits: list[int]) -> None:
    params.iou_thrs = IOU_THRESHOLDS.tolist()
    params.rec_thrs = RECALL_STEPS.tolist()
    params.area_rng = AREA_RANGES.tolist()
    params.max_dets = limits
