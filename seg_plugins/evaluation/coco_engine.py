"""COCO's matching and curves: hotcoco's, over all images at once.

hotcoco (MIT, https://github.com/derekallman/hotcoco) gives pycocotools' arrays bit for bit. It is
handed the detections once, as arrays: rows of numbers and, for masks, run lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from seg_plugins.ops.run_length import RunLengthMasks, mask_areas

import hotcoco
import numpy as np

from .average_precision import AREA_RANGES, IOU_THRESHOLDS, RECALL_STEPS, PrecisionRecall
from .coco_matches import Matches, flag_bits
from .coco_truth import CocoTruth
from .errors import EvaluationError

# The columns of the engine's rows: image, x, y, width, height, score, category.
_IMAGE, _BOX, _SCORE, _CATEGORY = 0, slice(1, 5), 5, 6
# What the engine calls detections that found an object, and those that are mistakes.
_KINDS = ("tp", "fp")


class FoundInstances:
    """Detections of many images in compact arrays: 56 bytes each, and with masks their run lengths.

    Attributes:
        with_masks: an image came with masks; True also where it had no detection.
    """

    def __init__(self) -> None:
        self.with_masks = False
        self._rows: list[np.ndarray] = []
        self._areas: list[np.ndarray] = []
        self._lengths: list[np.ndarray] = []
        self._counts: list[np.ndarray] = []

    def add(
        self,
        position: int,
        boxes: np.ndarray,
        scores: np.ndarray,
        categories: np.ndarray,
        masks: RunLengthMasks | None,
    ) -> None:
        """Add the N detections of one image, in the model's order, which breaks ties.

        Args:
            position: of the image among :attr:`CocoTruth.image_ids`.
            boxes: (N, 4) x, y, width, height in pixels.
            scores: (N,).
            categories: (N,) indices of :attr:`CocoTruth.categories`.
            masks: N masks; None from a model without.

        Raises:
            EvaluationError: masks in some images only.
            ValueError: run lengths that are no mask of this size.
        """
        rows = np.empty((len(scores), 7))
        rows[:, _IMAGE] = position + 1
        rows[:, _BOX] = boxes
        rows[:, _SCORE] = scores
        rows[:, _CATEGORY] = categories + 1
        if masks is not None:
            if self._rows and not self.with_masks:
                raise EvaluationError("detections with pred_masks, while other images had none.")
            self.with_masks = True
            self._areas.append(mask_areas(masks))
            self._lengths.append(np.diff(masks.offsets))
            self._counts.append(masks.data)
        elif len(rows) and self.with_masks:
            raise EvaluationError("detections without pred_masks, while other images had them.")
        if len(rows):
            self._rows.append(rows)

    def state(self) -> tuple[Any, ...]:
        """Everything in a few arrays, for :meth:`merged`."""
        return (
            self.with_masks,
            _joined(self._rows, np.zeros((0, 7))),
            _joined(self._areas, np.zeros(0, np.int64)),
            _joined(self._lengths, np.zeros(0, np.int64)),
            _joined(self._counts, np.zeros(0, np.uint8)),
        )

    @classmethod
    def merged(cls, states: Sequence[tuple[Any, ...]]) -> FoundInstances:
        """The detections of all processes.

        Raises:
            EvaluationError: masks from some processes only.
        """
        found = cls()
        found.with_masks = any(with_masks for with_masks, *_ in states)
        for with_masks, rows, areas, lengths, counts in states:
            if len(rows) and found.with_masks and not with_masks:
                raise EvaluationError("detections without pred_masks, while other images had them.")
            found._rows.append(rows)
            found._areas.append(areas)
            found._lengths.append(lengths)
            found._counts.append(counts)
        return found

    def columns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Of all N detections: position of the image, category, score; (N, 4) boxes."""
        rows = _joined(self._rows, np.zeros((0, 7)))
        image, category = (rows[:, c].astype(np.int64) - 1 for c in (_IMAGE, _CATEGORY))
        return image, category, rows[:, _SCORE], rows[:, _BOX]

    def rle_masks(self, sizes: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
        """COCO RLE dicts of all masks; `sizes` are height and width of the images by position."""
        _, rows, _, lengths, counts = self.state()
        text = counts.tobytes().decode("ascii")
        ends = np.cumsum(lengths).tolist()
        images = (rows[:, _IMAGE].astype(np.int64) - 1).tolist()
        masks, start = [], 0
        for image, end in zip(images, ends, strict=True):
            masks.append({"size": sizes[image], "counts": text[start:end]})
            start = end
        return masks


class CocoEngine:
    """Scores the detections of a dataset against its truth.

    Args:
        truth: with annotations.
        found: the detections.
        limits: the numbers of detections per image and class that count, ascending.
    """

    def __init__(self, truth: CocoTruth, found: FoundInstances, limits: Sequence[int]) -> None:
        self._truth = truth
        self._limits = list(limits)
        _, self._rows, self._mask_areas, _, _ = found.state()
        self.with_masks = found.with_masks and truth.has_masks
        rles: list[Any] | None = None
        if self.with_masks:
            rles = found.rle_masks([truth.size(p) for p in range(len(truth.image_ids))])
        self._found = truth.engine_dataset.load_res(self._rows, segmentation=rles)
        self._ids = np.arange(1, len(self._rows) + 1)
        self._runs: dict[str, hotcoco.COCOeval] = {}

    def curves(self, task: str) -> PrecisionRecall:
        """The curves of `task`: ``bbox``, or ``segm`` where there are masks."""
        result: Any = self._run(task).eval
        return PrecisionRecall(result["precision"], result["recall"], tuple(self._limits))

    def image_counts(self, task: str, confidence: float) -> np.ndarray:
        """(I, 3) int64: hits, mistakes and missed truths of each image at IoU 0.5.

        A detection in a crowd is neither hit nor mistake.

        Args:
            task: as of :meth:`curves`.
            confidence: the score from which a detection counts. It does not change how the
                others match: the surer one always chooses first.
        """
        # Detections that met an ignored truth are in neither of the two.
        status = self._run(task).image_diagnostics(iou_thr=IOU_THRESHOLDS[0])["dt_status"]
        images = self._rows[:, _IMAGE].astype(np.int64) - 1
        sure = self._rows[:, _SCORE] >= confidence
        number = len(self._truth.image_ids)
        counts = np.zeros((number, 3), np.int64)
        for column, kind in enumerate(_KINDS):
            chosen = np.zeros(len(images), bool)
            chosen[[i - 1 for i, k in status.items() if k == kind]] = True
            counts[:, column] = np.bincount(images[chosen & sure], minlength=number)
        counts[:, 2] = self._truth.counted - counts[:, 0]
        return counts

    def matches(self, task: str) -> Matches:
        """Hits and mistakes of `task` at every overlap, among objects of all sizes."""
        run = self._run(task)
        flags = {kind: np.zeros((len(IOU_THRESHOLDS), len(self._rows)), bool) for kind in _KINDS}
        for step, threshold in enumerate(IOU_THRESHOLDS):
            status = run.image_diagnostics(iou_thr=threshold)["dt_status"]
            ids = np.fromiter(status.keys(), np.int64, len(status))
            for kind, flag in flags.items():
                chosen = np.fromiter((k == kind for k in status.values()), bool, len(status))
                flag[step, ids[chosen] - 1] = True
        return Matches.sorted(
            self._rows[:, _IMAGE].astype(np.int64) - 1,
            self._rows[:, _CATEGORY].astype(np.int64) - 1,
            self._rows[:, _SCORE],
            *(flag_bits(flag) for flag in flags.values()),
        )

    def partners(self, task: str) -> tuple[np.ndarray, np.ndarray]:
        """What each of the N detections met at IoU 0.5.

        Args:
            task: as of :meth:`curves`.

        Returns:
            (N,) int64 index in :attr:`CocoTruth.annotations`, -1 of none; and (N,) bool, whether
            it counts: not in a crowd, and within the limit of detections.
        """
        found = self._run(task).image_diagnostics(iou_thr=IOU_THRESHOLDS[0])
        truth = np.full(len(self._rows), -1, np.int64)
        counts = np.zeros(len(self._rows), bool)
        counts[[i - 1 for i, kind in found["dt_status"].items() if kind in ("tp", "fp")]] = True
        for detection, annotation in found["dt_match"].items():
            truth[detection - 1] = annotation - 1
        return truth, counts

    def _run(self, task: str) -> hotcoco.COCOeval:
        if task not in self._runs:
            # As Detectron2: boxes are sorted into sizes by their own area, masks by theirs.
            areas = self._rows[:, 3] * self._rows[:, 4] if task == "bbox" else self._mask_areas
            if len(self._rows) and self.with_masks:
                self._found.update_anns(ids=self._ids, area=areas.astype(np.float64))
            run = hotcoco.COCOeval(self._truth.engine_dataset, self._found, task)
            run.params.iou_thrs = IOU_THRESHOLDS.tolist()
            run.params.rec_thrs = RECALL_STEPS.tolist()
            run.params.area_rng = AREA_RANGES.tolist()
            run.params.max_dets = self._limits
            run.evaluate()
            run.accumulate()
            self._runs[task] = run
        return self._runs[task]


def _joined(parts: Sequence[np.ndarray], empty: np.ndarray) -> np.ndarray:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else empty
