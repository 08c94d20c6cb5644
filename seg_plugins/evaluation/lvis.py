"""LVIS: average precision over categories of which each image is annotated for some alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seg_plugins.ops.run_length import RunLengthMasks

import hotcoco
import numpy as np

from ..data import Dataset
from ..io.masks import mask_area
from .confusion import detection_scores
from .errors import EvaluationError
from .instance_predictions import (
    CONFIDENCE,
    coco_records,
    predicted_boxes,
    predicted_masks,
    predicted_scores,
)
from .lvis_truth import ImageTruth, LvisTruth
from .streaming import StreamingEvaluator

__all__ = ["LVIS_LIMIT", "LvisEvaluator"]

#: Detections of an image, over all categories, that count.
LVIS_LIMIT = 300
_FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf")


class LvisEvaluator(StreamingEvaluator):
    """AP of boxes and masks by LVIS's rules, also by size and by how frequent a category is.

    A detection counts where its category was looked for in the image: it has objects there, or is
    known to be absent (``neg_category_ids``). One without a match is no mistake where not all
    objects of the category were marked (``not_exhaustive_category_ids``). Of each image the best
    300 detections over all categories are taken (Gupta et al., LVIS, 2019). Matching and
    accumulation are hotcoco's; the figures are those of the package ``lvis``.

    Scores ``output["instances"]``, see
    :class:`~seg_plugins.evaluation.instance.InstanceEvaluator`.

    Args:
        dataset_name: registered name, or the :class:`~seg_plugins.data.Dataset`.
        output_dir: folder for ``instances_results.json`` and ``instances_per_image.jsonl``; None
            writes nothing.
        max_dets_per_image: detections that count of each image, over all categories.
        save_predictions: write ``lvis_instances_results.json`` to `output_dir`, streamed: every
            detection, as the evaluation server takes them.
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
        max_dets_per_image: int = LVIS_LIMIT,
        save_predictions: bool = False,
        distributed: bool = True,
        allow_missing: bool = False,
    ) -> None:
        dataset = Dataset.get(dataset_name)
        self._truth = LvisTruth(dataset)
        if not (self._truth.has_annotations or save_predictions):
            raise EvaluationError(
                f"{self._truth.source} has no annotations to score against; pass "
                f"save_predictions=True to write predictions alone."
            )
        self._limit = max_dets_per_image
        super().__init__(
            dataset,
            output_dir,
            image_keys=self._truth.image_ids,
            save_predictions=save_predictions,
            predictions_file="lvis_instances_results.json",
            distributed=distributed,
            allow_missing=allow_missing,
        )

    def reset(self) -> None:
        """Forget everything seen; called before each round of evaluation."""
        super().reset()
        # Of each image the engine's columns (image, x, y, w, h, score, category), and run lengths.
        self._found: list[np.ndarray] = []
        self._masks: list[tuple[int, list[bytes]]] = []
        self._with_masks = False
        self._by_class: dict[str, dict[str, float]] = {}

    # --------------------------------------------------------------------------- one image

    def score_image(self, position: int, given: Mapping, output: Mapping) -> Mapping[str, float]:
        """Keep the detections that count.

        The image's own ``score`` is F1 at IoU 0.5 of the boxes that score 0.5 or more.
        """
        instances, truth = output["instances"], self._truth.images[position]
        scores = predicted_scores(instances).astype(np.float64)
        if np.isnan(scores).any():
            raise EvaluationError("a detection has the score NaN.")
        categories = self._category_ids(instances.pred_classes.cpu().numpy())
        boxes = predicted_boxes(instances)
        if self.predictions:
            masks = predicted_masks(instances, truth.size)
            records = coco_records(given["image_id"], boxes, scores, categories.tolist(), masks)
            self.predictions.write(records)
        if not self._truth.has_annotations:
            return {"score": float("nan")}
        # Ties keep the model's order. First the best of all, then those that are judged.
        best = np.argsort(-scores, kind="stable")[: self._limit]
        chosen = best[[int(c) in truth.judged for c in categories[best]]] if len(best) else best
        columns = np.column_stack(
            [np.full(len(chosen), truth.number), boxes[chosen], scores[chosen], categories[chosen]]
        )
        self._found.append(columns)
        # A model that gives masks has the field in images where it finds nothing, too.
        if self._truth.has_masks and instances.has("pred_masks"):
            self._with_masks = True
            masks = predicted_masks(instances, truth.size)
            found = masks[chosen] if masks is not None and len(chosen) else None
            self._masks.append((truth.number, _strings(found)))
        elif len(scores) and self._with_masks:
            raise EvaluationError("detections without pred_masks, while other images had them.")
        return _image_score(columns, truth)

    def _category_ids(self, classes: np.ndarray) -> np.ndarray:
        known = self._truth.category_of_class
        unknown = [int(c) for c in np.unique(classes) if int(c) not in known]
        if unknown:
            raise EvaluationError(
                f"predicted class {unknown[0]} is none of the {len(known)} of "
                f"'{self.dataset_name}'."
            )
        return np.array([known[int(c)] for c in classes], np.int64)

    # ----------------------------------------------------------------------------- results

    def local_state(self) -> Any:
        """The detections of this process."""
        return self._found, self._masks, self._with_masks

    def summarize(self, states: Sequence[Any]) -> dict[str, dict[str, float]]:
        """Average precision over all processes' detections."""
        if not self._truth.has_annotations:
            return {}
        parts = [part for columns, *_ in states for part in columns]
        found = np.concatenate([np.zeros((0, 7)), *parts])
        # In the order of the images, which breaks ties of the score.
        found = found[np.argsort(found[:, 0], kind="stable")]
        truth = self._truth.engine()
        results = {"bbox": self._scores(truth, found, None)}
        if any(with_masks for *_, with_masks in states):
            pairs = sorted((pair for _, masks, _ in states for pair in masks), key=lambda p: p[0])
            results["segm"] = self._scores(truth, found, self._run_lengths(pairs, len(found)))
        return results

    def _run_lengths(self, pairs: list[tuple[int, list[bytes]]], count: int) -> list[dict]:
        sizes = [list(image.size) for image in self._truth.images]
        masks = [
            {"size": sizes[number - 1], "counts": string.decode("ascii")}
            for number, strings in pairs
            for string in strings
        ]
        if len(masks) != count:
            raise EvaluationError(f"{count - len(masks)} of {count} detections have no mask.")
        return masks

    def _scores(
        self, truth: hotcoco.COCO, found: np.ndarray, masks: list[dict] | None
    ) -> dict[str, float]:
        kind = "bbox" if masks is None else "segm"
        # Of masks it is the mask's, not the box's; lvis leaves out what has no area.
        areas = found[:, 3] * found[:, 4] if masks is None else _areas(masks)
        chosen = np.flatnonzero(areas > 0)
        if masks is None:
            detections = truth.load_res(found[chosen])
        else:
            detections = truth.load_res(found[chosen], segmentation=[masks[i] for i in chosen])
            detections.update_anns(ids=np.arange(1, len(chosen) + 1), area=areas[chosen])
        # Only says that the number has been limited: it was when the detections came.
        detections = detections.cap_detections_per_image(None)
        engine = hotcoco.COCOeval(truth, detections, kind, lvis_style=True)
        engine.params.max_dets = [self._limit]
        engine.evaluate()
        engine.accumulate()  # its summarize() would print
        # (T IoU thresholds, R recalls, K categories, A sizes); -1 where a category has no object.
        precision = np.asarray((engine.eval or {})["precision"])[..., 0]
        order = list(engine.params.cat_ids)
        known = {c["id"]: c for c in self._truth.categories}
        rarity = np.array([known[category]["frequency"] for category in order])
        self._by_class[kind] = {
            known[category]["name"]: _average(precision[:, :, place, 0])
            for place, category in enumerate(order)
        }
        return {
            "AP": _average(precision[..., 0]),
            "AP50": _average(precision[0, ..., 0]),
            "AP75": _average(precision[5, ..., 0]),
            **{f"AP{size}": _average(precision[..., a]) for a, size in enumerate("sml", 1)},
            **{f"AP{f}": _average(precision[:, :, rarity == f, 0]) for f in "rcf"},
        }

    def metrics(self) -> dict[str, bool]:
        """Figures of boxes and, with masks in the truth, of masks."""
        tasks = ["bbox"] + ["segm"] * self._truth.has_masks
        return {f"{task}/{name}": True for task in tasks for name in _FIGURES}

    def extra_json(self) -> dict[str, Any]:
        """AP of each category that the file lists, for each task."""
        return {"by_class": self._by_class}


def _average(precision: np.ndarray) -> float:
    """Percent, over what has objects; NaN where nothing has."""
    known = precision[precision > -1]
    return 100 * float(np.mean(known)) if known.size else float("nan")


def _areas(masks: list[dict]) -> np.ndarray:
    return np.array([mask_area(mask) for mask in masks], np.float64)


def _strings(masks: RunLengthMasks | None) -> list[bytes]:
    return [masks.string(i) for i in range(len(masks))] if masks is not None else []


def _image_score(found: np.ndarray, truth: ImageTruth) -> dict[str, float]:
    """F1 at IoU 0.5 of the confident boxes of one image, best first."""
    sure = found[found[:, 5] >= CONFIDENCE]
    corners, ends = truth.boxes[:, :2], truth.boxes[:, :2] + truth.boxes[:, 2:]
    areas = truth.boxes[:, 2:].prod(axis=1)
    free = np.ones(len(areas), bool)
    hit, miss = np.zeros(len(sure), bool), np.zeros(len(sure), bool)
    for place, (_, x, y, width, height, _, category) in enumerate(sure):
        sides = np.minimum(ends, [x + width, y + height]) - np.maximum(corners, [x, y])
        shared = sides.clip(0).prod(axis=1)
        usable = free & (truth.categories == category)
        overlaps = np.where(usable, shared / np.maximum(areas + width * height - shared, 1e-9), 0)
        if overlaps.size and overlaps.max() >= 0.5:
            hit[place], free[overlaps.argmax()] = True, False
        else:
            miss[place] = int(category) not in truth.incomplete
    return detection_scores(hit, miss, len(areas))
