"""Instance segmentation and detection: COCO's average precision, matched while images come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seg_plugins.ops.instance_matching import match_instances
from seg_plugins.ops.run_length import RunLengthMasks, mask_boundaries, mask_iou

import numpy as np

from ..data import Dataset
from .average_precision import (
    AREA_SUFFIXES,
    FLAG_BYTES,
    IOU_THRESHOLDS,
    RECALL_STEPS,
    PrecisionRecall,
    pack_flags,
    unpack_flags,
)
from .coco_truth import CocoTruth, ImageTruth, outside_area_ranges
from .confusion import detection_scores
from .errors import EvaluationError
from .instance_predictions import (
    CONFIDENCE,
    box_iou,
    coco_records,
    predicted_boxes,
    predicted_masks,
)
from .streaming import StreamingEvaluator

_GROUPS = ("bbox", "segm", "boundary")
#: Detections per image and category that count in COCO's own figures.
COCO_LIMIT = 100


class InstanceEvaluator(StreamingEvaluator):
    """COCO's twelve numbers for boxes and masks, per class and per size, and Boundary AP.

    Scores ``output["instances"]``, Detectron2's Instances in the original image's pixels:
    ``pred_boxes``, ``scores``, ``pred_classes`` (contiguous) and, for masks, ``pred_masks``: an
    (N, H, W) bool or uint8 tensor, a :class:`~seg_plugins.ops.run_length.RunLengthMasks` or a
    list of COCO RLE dicts.

    Each image is matched when it comes; what stays is a record of under 64 bytes per detection.
    The numbers equal pycocotools', except that an annotation whose id is 0 counts like any other
    (pycocotools takes it for "unmatched"), and that they are 0, not NaN, when nothing at all was
    predicted.

    Args:
        dataset_name: registered name, or the :class:`~seg_plugins.data.Dataset`.
        output_dir: folder for ``instances_results.json``, ``instances_per_image.jsonl`` and
            ``<task>_curves.npz``; None writes nothing.
        max_dets_per_image: detections per image and category that count, as in COCO. Above 100,
            AP at COCO's 100 is given beside it, as ``AP@100``.
        boundary: score Boundary AP as well (Cheng et al., Boundary IoU, 2021): overlap is the
            smaller of mask IoU and the IoU of the masks' boundary bands.
        dilation_ratio: width of the boundary band as a share of the image diagonal.
        save_predictions: write ``coco_instances_results.json`` to `output_dir`, streamed.
        distributed: gather over all processes.
        allow_missing: score although some images never came; their truth counts as missed.
    """

    task = "instances"
    image_key = "image_id"
    output_key = "instances"

    def __init__(
        self,
        dataset_name: str | Dataset,
        output_dir: str | Path | None = None,
        *,
        max_dets_per_image: int = 100,
        boundary: bool = False,
        dilation_ratio: float = 0.02,
        save_predictions: bool = False,
        distributed: bool = True,
        allow_missing: bool = False,
    ) -> None:
        dataset = Dataset.get(dataset_name)
        self._truth = CocoTruth(dataset)
        if not (self._truth.has_annotations or save_predictions):
            raise EvaluationError(
                f"{self._truth.source} has no annotations to score against; pass "
                f"save_predictions=True to write predictions alone."
            )
        limits = {1, min(10, max_dets_per_image), min(100, max_dets_per_image), max_dets_per_image}
        self._limits = sorted(limits)
        self._dilation_ratio = dilation_ratio
        self._record = np.dtype(
            [("score", "f8"), ("position", "u4"), ("category", "u2"), ("rank", "u2")]
            + [
                (f"{task}_{kind}", "u1", FLAG_BYTES)
                for task in (_GROUPS if boundary else _GROUPS[:2])
                for kind in ("hit", "miss")
            ]
        )
        self._boundary = boundary
        self._category_of_class = {c: k for k, (c, _, _) in enumerate(self._truth.categories)}
        self.class_names = self._truth.class_names
        super().__init__(
            dataset,
            output_dir,
            image_keys=self._truth.image_ids,
            save_predictions=save_predictions,
            predictions_file="coco_instances_results.json",
            distributed=distributed,
            allow_missing=allow_missing,
        )

    def reset(self) -> None:
        """Forget everything seen; called before each round of evaluation."""
        super().reset()
        self._records = bytearray()
        self._with_masks = False
        self.curves: dict[str, PrecisionRecall] = {}

    # --------------------------------------------------------------------------- one image

    def score_image(self, position: int, given: Mapping, output: Mapping) -> Mapping[str, float]:
        """Match the detections of one image and keep a record of each.

        The image's own ``score`` is F1 at IoU 0.5 of the detections that score 0.5 or more, of
        masks where there are any.
        """
        instances = output["instances"]
        truth = self._truth.image(self._truth.image_ids[position])
        scores = np.asarray(instances.scores.cpu().numpy(), np.float64)
        categories = self._categories(instances.pred_classes.cpu().numpy())
        if np.isnan(scores).any():
            raise EvaluationError("a detection has the score NaN.")
        boxes = predicted_boxes(instances)
        if self.predictions:
            masks = predicted_masks(instances, truth.size)
            ids = [self._truth.category_ids[category] for category in categories]
            self.predictions.write(coco_records(given["image_id"], boxes, scores, ids, masks))
        if not self._truth.has_annotations:
            return {"score": float("nan")}
        # By category, best first; ties keep the model's order.
        order = np.lexsort((-scores, categories))
        first_of_category = np.searchsorted(categories[order], categories[order])
        ranks = np.arange(len(order)) - first_of_category
        order, ranks = order[ranks < self._limits[-1]], ranks[ranks < self._limits[-1]]
        records = np.zeros(len(order), self._record)
        records["score"] = scores[order]
        records["position"] = position
        records["category"] = categories[order]
        records["rank"] = ranks
        box_areas = boxes[order, 2] * boxes[order, 3]
        box_overlaps = box_iou(boxes[order], truth, categories[order])
        self._match("bbox", records, box_overlaps, box_areas, truth)
        # A model that gives masks has the field in images where it finds nothing, too.
        if self._truth.has_masks and instances.has("pred_masks"):
            self._with_masks = True
            if len(order):
                self._match_masks(records, predicted_masks(instances, truth.size, order), truth)
        elif len(order) and self._with_masks:
            raise EvaluationError("detections without pred_masks, while other images had them.")
        self._records += records.tobytes()
        sure = records[records["score"] >= CONFIDENCE]
        task = "segm" if self._with_masks else "bbox"
        hit, miss = (unpack_flags(sure[f"{task}_{kind}"])[0, 0] for kind in ("hit", "miss"))
        return detection_scores(hit, miss, int(np.count_nonzero(~truth.ignored[0])))

    def _match_masks(
        self, records: np.ndarray, masks: RunLengthMasks | None, truth: ImageTruth
    ) -> None:
        if masks is None:
            return
        true_masks = truth.masks()
        groups: dict[str, np.ndarray] = {
            "detection_groups": records["category"].astype(np.int64),
            "truth_groups": truth.categories,
            "crowd": truth.crowd,
        }
        overlaps, areas, _ = mask_iou(masks, true_masks, **groups)
        self._match("segm", records, overlaps, areas, truth)
        if self._boundary:
            diagonal = np.hypot(truth.height, truth.width)
            width = max(1, round(self._dilation_ratio * diagonal))
            found_bands, true_bands = (mask_boundaries(m, width) for m in (masks, true_masks))
            band_overlaps, _, _ = mask_iou(found_bands, true_bands, **groups)
            self._match("boundary", records, np.minimum(overlaps, band_overlaps), areas, truth)

    def _match(
        self,
        task: str,
        records: np.ndarray,
        overlaps: np.ndarray,
        areas: np.ndarray,
        truth: ImageTruth,
    ) -> None:
        matched, ignored = match_instances(
            overlaps,
            detection_groups=records["category"].astype(np.int64),
            truth_groups=truth.categories,
            crowd=truth.crowd,
            truth_ignored=truth.ignored,
            thresholds=IOU_THRESHOLDS,
        )
        # A detection that found nothing and has not the asked-for size does not count either.
        other_size = outside_area_ranges(areas)[:, None]
        records[f"{task}_hit"] = pack_flags(matched & ~ignored)
        records[f"{task}_miss"] = pack_flags(~matched & ~other_size)

    def _categories(self, classes: np.ndarray) -> np.ndarray:
        unknown = [int(c) for c in np.unique(classes) if int(c) not in self._category_of_class]
        if unknown:
            raise EvaluationError(
                f"predicted class {unknown[0]} is none of the {len(self._category_of_class)} of "
                f"'{self.dataset_name}'."
            )
        return np.array([self._category_of_class[int(c)] for c in classes], np.int64)

    # ----------------------------------------------------------------------------- results

    def local_state(self) -> Any:
        """The records of this process."""
        return bytes(self._records), self._with_masks

    def summarize(self, states: Sequence[Any]) -> dict[str, dict[str, float]]:
        """Average precision over all processes' records."""
        if not self._truth.has_annotations:
            return {}
        records = np.concatenate([np.frombuffer(part, self._record) for part, _ in states])
        # COCO breaks ties of the score by image.
        records = records[np.argsort(records["position"], kind="stable")]
        tasks = ["bbox"]
        if self._truth.has_masks and any(with_masks for _, with_masks in states):
            tasks += self._mask_tasks()
        results = {}
        for task in tasks:
            self.curves[task] = self._curves(task, records)
            results[task] = self._figures(task, records)
            if self.output_dir:
                self.curves[task].save(self.output_dir / f"{task}_curves.npz", self.class_names)
        return results

    def _curves(self, task: str, records: np.ndarray) -> PrecisionRecall:
        return PrecisionRecall(
            categories=records["category"].astype(np.int64),
            scores=records["score"],
            ranks=records["rank"],
            hits=records[f"{task}_hit"],
            misses=records[f"{task}_miss"],
            positives=self._truth.positives,
            limits=self._limits,
        )

    def metrics(self) -> dict[str, bool]:
        """Figures of boxes and, with masks in the truth, of masks."""
        tasks = ["bbox"] + self._mask_tasks() * self._truth.has_masks
        figures = self._figures("bbox", np.zeros(0, self._record))
        return {f"{task}/{name}": True for task in tasks for name in figures}

    def _mask_tasks(self) -> list[str]:
        return ["segm", "boundary"] if self._boundary else ["segm"]

    def _figures(self, task: str, records: np.ndarray) -> dict[str, float]:
        curves = self.curves.get(task) or self._curves(task, records)
        scores = curves.summary()
        if self._limits[-1] > COCO_LIMIT:
            first = records[records["rank"] < COCO_LIMIT]
            scores[f"AP@{COCO_LIMIT}"] = self._curves(task, first).average_precision()
        for k, name in enumerate(self.class_names):
            scores[f"AP-{name}"] = curves.average_precision(category=k)
        return {key: 100 * value for key, value in scores.items()}

    def extra_json(self) -> dict[str, Any]:
        """AP of each class by size and precision-recall curves, for each task."""
        return {
            "by_class_and_size": {
                task: {
                    name: {
                        f"AP{suffix}": 100 * curves.average_precision(area=area, category=k)
                        for area, suffix in enumerate(AREA_SUFFIXES)
                    }
                    for k, name in enumerate(self.class_names)
                }
                for task, curves in self.curves.items()
            },
            "pr_curves": {
                task: {
                    "recall": RECALL_STEPS.round(2),
                    "AP": curves.curve().round(5),
                    "AP50": curves.curve(threshold=0.5).round(5),
                    "AP75": curves.curve(threshold=0.75).round(5),
                    "AP50_by_class": {
                        name: curves.curve(threshold=0.5, category=k).round(5)
                        for k, name in enumerate(self.class_names)
                    },
                }
                for task, curves in self.curves.items()
            },
        }
