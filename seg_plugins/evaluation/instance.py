"""Instance segmentation and detection: COCO's average precision."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data import Dataset
from .average_precision import AREA_SUFFIXES, RECALL_STEPS, PrecisionRecall
from .boundary_precision import BoundaryPrecision
from .coco_engine import CocoEngine
from .coco_matches import MatchedImages
from .coco_truth import CocoTruth
from .confusion import f1_scores
from .errors import EvaluationError
from .found_instances import FoundInstances
from .instance_predictions import (
    CONFIDENCE,
    coco_records,
    predicted_boxes,
    predicted_masks,
    predicted_scores,
)
from .predictions import RecordStream
from .results import plain_json
from .streaming import StreamingEvaluator

#: Detections per image and category that count in COCO's own figures.
COCO_LIMIT = 100


class InstanceEvaluator(StreamingEvaluator):
    """COCO's twelve numbers for boxes and masks, per class and per size, and Boundary AP.

    Scores ``output["instances"]``, Detectron2's Instances in the original image's pixels:
    ``pred_boxes``, ``scores``, ``pred_classes`` (contiguous) and, for masks, ``pred_masks``: an
    (N, H, W) bool or uint8 tensor, a :class:`~seg_plugins.ops.run_length.RunLengthMasks` or a
    list of COCO RLE dicts.

    What stays of an image until the end is 72 bytes per detection and the run lengths of its mask;
    many go to a temporary file. Then the engine, hotcoco, scores all of them, of many a part at a
    time. The numbers equal pycocotools',
    except that an annotation whose id is 0 counts like any other (pycocotools takes it for
    "unmatched"), and that they are 0, not NaN, when nothing at all was predicted.

    Args:
        dataset_name: registered name, or the :class:`~seg_plugins.data.Dataset`.
        output_dir: folder for ``instances_results.json``, ``instances_per_image.jsonl``,
            ``instances_matches.npz`` and ``<task>_curves.npz``; None writes nothing.
        max_dets_per_image: detections per image and category that count, as in COCO. Above 100,
            AP at COCO's 100 is given beside it, as ``AP@100``.
        boundary: score Boundary AP as well (Cheng et al., Boundary IoU, 2021): overlap is the
            smaller of mask IoU and the IoU of the masks' boundary bands.
        dilation_ratio: width of the boundary band as a share of the image diagonal.
        save_predictions: write ``coco_instances_results.json`` to `output_dir`, streamed.
        distributed: gather over all processes.
        allow_missing: score although some images never came; their truth counts as missed.
        class_agnostic: all classes count as one, "object": whether things are found, whatever
            they are called (pycocotools' ``useCats = 0``). Saved predictions keep their classes.
    """

    task = "instances"
    image_key = "image_id"
    output_key = "instances"
    scores_images_at_end = True

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
        keep_matches: bool = True,
        class_agnostic: bool = False,
    ) -> None:
        dataset = Dataset.get(dataset_name)
        self._keep_matches = keep_matches
        self._truth = CocoTruth(dataset, class_agnostic)
        if not (self._truth.has_annotations or save_predictions):
            raise EvaluationError(
                f"{self._truth.source} has no annotations to score against; pass "
                f"save_predictions=True to write predictions alone."
            )
        limits = {1, min(10, max_dets_per_image), min(100, max_dets_per_image), max_dets_per_image}
        self._limits = sorted(limits)
        self._boundary = (
            BoundaryPrecision(self._truth, self._limits, dilation_ratio) if boundary else None
        )
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
        self._found = FoundInstances()
        # Positions in the order of the visits.
        self._visited = array("q")
        if self._boundary:
            self._boundary.reset()
        self.curves: dict[str, PrecisionRecall] = {}

    # --------------------------------------------------------------------------- one image

    def score_image(self, position: int, given: Mapping, output: Mapping) -> Mapping[str, float]:
        """Check the detections of one image and keep them; its own score comes at the end."""
        instances = output["instances"]
        size = self._truth.size(position)
        scores = predicted_scores(instances)
        categories = self._categories(instances.pred_classes.cpu().numpy())
        if np.isnan(scores).any():
            raise EvaluationError("a detection has the score NaN.")
        boxes = predicted_boxes(instances)
        scored = self._truth.has_annotations
        masks = None
        if self.predictions or (scored and self._truth.has_masks):
            masks = predicted_masks(instances, size)
        if self.predictions:
            ids = [self._truth.category_ids[category] for category in categories]
            self.predictions.write(coco_records(given["image_id"], boxes, scores, ids, masks))
        if self.output_dir:
            self._visited.append(position)
        if not scored:
            return {}
        masks = masks if self._truth.has_masks else None
        categories = self._truth.scored_as(categories)
        self._found.add(position, boxes, scores, categories, masks)
        if self._boundary and masks is not None:
            self._boundary.add(position, scores.astype(np.float64), categories, masks)
        return {}

    def _categories(self, classes: np.ndarray) -> np.ndarray:
        """(N,) int64 indices of the truth's categories."""
        categories = self._truth.categories_of(classes)
        if len(categories) and categories.min() < 0:
            raise EvaluationError(
                f"predicted class {classes[categories < 0][0]} is none of the "
                f"{len(self._truth.categories)} of '{self.dataset_name}'."
            )
        return categories

    # ----------------------------------------------------------------------------- results

    def local_state(self) -> Any:
        """The detections of this process."""
        boundary = self._boundary.state() if self._boundary else b""
        return self._found, boundary, self._visited

    def summarize(self, states: Sequence[Any]) -> dict[str, dict[str, float]]:
        """Average precision over all processes' detections."""
        visited = [visit for _, _, visits in states for visit in visits]
        if not self._truth.has_annotations:
            self._write_image_scores(visited, None)
            return {}
        found = FoundInstances.merged([state for state, _, _ in states])
        engine = CocoEngine(self._truth, found, self._limits)
        self.curves = {"bbox": engine.curves("bbox")}
        if found.with_masks:
            self.curves["segm"] = engine.curves("segm")
            if self._boundary:
                self.curves["boundary"] = self._boundary.curves([part for _, part, _ in states])
        if self.output_dir:
            matches = self.output_dir / f"{self.task}_matches.npz"
            kinds = [task for task in self.curves if task != "boundary"]
            if self._keep_matches:
                flags = {task: engine.flags(task) for task in kinds}
                self._matched_images(engine, flags).save(matches)
            else:
                matches.unlink(missing_ok=True)  # of an earlier evaluation
                flags = {kinds[-1]: engine.flags(kinds[-1], steps=1)}
            self._write_image_scores(visited, engine.image_counts(flags[kinds[-1]], CONFIDENCE))
            for task, curves in self.curves.items():
                curves.save(self.output_dir / f"{task}_curves.npz", self.class_names)
        return {task: self._figures(curves) for task, curves in self.curves.items()}

    def _write_image_scores(self, visited: Sequence[int], counts: np.ndarray | None) -> None:
        """A line per image: F1 at IoU 0.5 of sure detections, of masks where there are any."""
        if self.output_dir is None:
            return
        path = self.output_dir / f"{self.task}_per_image.jsonl"
        lines = RecordStream(path, distributed=False)  # the main process alone is here
        lines.reset()
        # The truth's own names may be those of a JSON file, without their folder.
        files = {r["image_id"]: r.get("file_name") for r in self.dataset.records if "image_id" in r}
        for position in visited:
            image_id = self._truth.image_ids[position]
            names = {"file_name": files.get(image_id), "image_id": image_id}
            scores = {"score": np.nan} if counts is None else f1_scores(*counts[position].tolist())
            lines.write([plain_json({**names, **scores})])
        lines.finish()

    def _matched_images(
        self, engine: CocoEngine, flags: Mapping[str, tuple[np.ndarray, np.ndarray]]
    ) -> MatchedImages:
        """What a bootstrap over the images needs."""
        return MatchedImages(
            [str(image_id) for image_id in self._truth.image_ids],
            self.class_names,
            *self._truth.counted_objects,
            {task: engine.matches(found) for task, found in flags.items()},
        )

    def metrics(self) -> dict[str, bool]:
        """Figures of boxes and, with masks in the truth, of masks."""
        tasks = ["bbox"]
        if self._truth.has_masks:
            tasks += ["segm", "boundary"] if self._boundary else ["segm"]
        classes = len(self.class_names)
        curves = PrecisionRecall(
            np.zeros((10, 101, classes, 4, len(self._limits))),
            np.zeros((10, classes, 4, len(self._limits))),
            tuple(self._limits),
        )
        return {f"{task}/{name}": True for task in tasks for name in self._figures(curves)}

    def _figures(self, curves: PrecisionRecall) -> dict[str, float]:
        scores = curves.summary()
        if self._limits[-1] > COCO_LIMIT:
            scores[f"AP@{COCO_LIMIT}"] = curves.average_precision(limit=COCO_LIMIT)
        for name, value in zip(self.class_names, curves.by_class(), strict=True):
            scores[f"AP-{name}"] = value
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
