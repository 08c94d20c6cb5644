"""Panoptic segmentation: PQ, SQ and RQ, without a PNG on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data import Dataset
from ..io.panoptic import read_segment_colors, write_segment_ids
from ..io.panoptic import write_segment_ids as write_panoptic_png  # noqa: F401 - its former name
from .errors import EvaluationError
from .panoptic_quality import VOID, PanopticCounts
from .streaming import StreamingEvaluator


class PanopticEvaluator(StreamingEvaluator):
    """PQ, SQ and RQ of all, thing (``_th``) and stuff (``_st``) classes, and of each, in percent.

    Scores ``output["panoptic_seg"]``, Detectron2's pair of an (H, W) id map and its segments:
    ``id``, ``category_id`` (contiguous, with ``isthing``; the dataset's own without). Where the
    segments are None the ids are category * ``label_divisor`` + instance, and -1 is void.

    Args:
        dataset_name: registered name, or the :class:`~seg_plugins.data.Dataset`; with panoptic
            segments in its records, or in COCO's panoptic format (``panoptic_json`` and
            ``panoptic_root`` of its metadata).
        output_dir: folder for ``panoptic_seg_results.json`` and ``panoptic_seg_per_image.jsonl``;
            None writes nothing.
        save_predictions: write COCO's panoptic result format to `output_dir`:
            ``panoptic_predictions.json`` and the PNGs in ``panoptic_predictions/``.
        distributed: gather over all processes.
        allow_missing: score although some images of the dataset never came.
    """

    task = "panoptic_seg"
    image_key = "image_id"
    output_key = "panoptic_seg"

    def __init__(
        self,
        dataset_name: str | Dataset,
        output_dir: str | Path | None = None,
        *,
        save_predictions: bool = False,
        distributed: bool = True,
        allow_missing: bool = False,
    ) -> None:
        dataset = Dataset.get(dataset_name)
        truth = dataset.panoptic
        self._records, self.categories = truth.records, truth.categories
        self._root = str(dataset.metadata.get("panoptic_root", ""))
        self._label_divisor = dataset.metadata.get("label_divisor", None)
        self._dataset_id = {
            True: dataset.things.category_ids,
            False: dataset.stuff.category_ids,
        }
        keys = {"id": "image_id", "file_name": "file_name", "height": "height", "width": "width"}
        super().__init__(
            dataset,
            output_dir,
            image_keys=[record["image_id"] for record in self._records],
            save_predictions=save_predictions,
            predictions_file="panoptic_predictions.json",
            predictions_beside={
                "images": [
                    {key: record[own] for key, own in keys.items() if own in record}
                    for record in self._records
                ],
                "categories": self.categories,
            },
            distributed=distributed,
            allow_missing=allow_missing,
        )

    def reset(self) -> None:
        """Forget everything seen; called before each round of evaluation."""
        super().reset()
        self.counts = PanopticCounts([category["id"] for category in self.categories])

    def score_image(self, position: int, given: Mapping, output: Mapping) -> Mapping[str, Any]:
        """Add one image to the counts; its own figures are PQ, as ``score``, SQ, RQ and counts.

        ``by_class`` is what a bootstrap over the images needs.
        """
        ids, segments = output["panoptic_seg"]
        found_ids, found = self._prediction(ids, segments)
        record = self._records[position]
        truth_ids = read_segment_colors(str(record["pan_seg_file_name"]))
        if truth_ids.shape[:2] != found_ids.shape:
            raise EvaluationError(
                f"the prediction is {_size(found_ids)} but the ground truth is "
                f"{_size(truth_ids)} (height x width); predict at the size of the original image."
            )
        image = PanopticCounts(list(self.counts.index))
        image.add(truth_ids, record["segments_info"], found_ids, found)
        self.counts.merge(image)
        if self.predictions and self.saving_to:
            name = self._png_name(record)
            write_segment_ids(self.saving_to / "panoptic_predictions" / name, found_ids)
            entry = {"image_id": record["image_id"], "file_name": name}
            self.predictions.write([{**entry, "segments_info": found}])
        qualities = (100 * _mean(values) for values in image.quality())
        scores = dict(zip(("score", "SQ", "RQ"), qualities, strict=True))
        sums = (int(counts.sum()) for counts in image.state()[:3])
        counts = dict(zip(("tp", "fp", "fn"), sums, strict=True))
        return {**scores, **counts, "by_class": image.by_class()}

    def local_state(self) -> Any:
        """The counts of this process."""
        return self.counts.state()

    def summarize(self, states: Sequence[Any]) -> dict[str, dict[str, float]]:
        """Quality from the counts of all processes."""
        self.counts.set_state([np.sum(part, axis=0) for part in zip(*states, strict=True)])
        qualities = dict(zip(("PQ", "SQ", "RQ"), self.counts.quality(), strict=True))
        things = np.array([bool(category["isthing"]) for category in self.categories], bool)
        scores = {}
        for suffix, chosen in (("", things | True), ("_th", things), ("_st", ~things)):
            for name, values in qualities.items():
                scores[name + suffix] = _mean(values[chosen])
        for name, values in qualities.items():
            for category, value in zip(self.categories, values, strict=True):
                scores[f"{name}-{category['name']}"] = value
        scores = {key: 100 * float(value) for key, value in scores.items()}
        wrong = [key for key, value in scores.items() if not (np.isnan(value) or 0 <= value <= 100)]
        if wrong:
            raise EvaluationError(f"{wrong[0]} is {scores[wrong[0]]}, outside 0..100.")
        return {self.task: scores}

    def extra_json(self) -> dict[str, Any]:
        """Counts per category."""
        tp, fp, fn, _ = self.counts.state()
        return {
            "counts": {
                category["name"]: {"tp": tp[i], "fp": fp[i], "fn": fn[i]}
                for i, category in enumerate(self.categories)
            }
        }

    def _png_name(self, record: Mapping[str, Any]) -> str:
        """The truth's own name, below the folder of the truth."""
        path = Path(record["pan_seg_file_name"])
        below = self._root and path.is_relative_to(self._root)
        return (path.relative_to(self._root) if below else Path(path.name)).as_posix()

    def _prediction(
        self, ids: torch.Tensor, segments: Sequence[Mapping[str, Any]] | None
    ) -> tuple[np.ndarray, list[dict[str, int]]]:
        """The id map (0 is void) and its segments with the dataset's categories."""
        found_ids = torch.as_tensor(ids).cpu().numpy()
        if found_ids.ndim != 2:
            raise EvaluationError(f"the id map has shape {found_ids.shape}, not (H, W).")
        if segments is not None:
            return found_ids, [self._segment(segment) for segment in segments]
        if self._label_divisor is None:
            raise EvaluationError(
                "ids without segments need 'label_divisor' in the dataset's metadata."
            )
        found_ids = found_ids + 1  # 0 becomes void
        found = []
        for value in np.unique(found_ids).tolist():
            if value == VOID:
                continue
            contiguous = (value - 1) // self._label_divisor
            isthing = contiguous in self._dataset_id[True]
            found.append(
                self._segment({"id": value, "category_id": contiguous, "isthing": isthing})
            )
        return found_ids, found

    def _segment(self, segment: Mapping[str, Any]) -> dict[str, int]:
        category = int(segment["category_id"])
        if "isthing" in segment:
            kind = bool(segment["isthing"])
            if category not in self._dataset_id[kind]:
                raise EvaluationError(
                    f"predicted segment {segment['id']} has the unknown "
                    f"{'thing' if kind else 'stuff'} class {category}."
                )
            category = self._dataset_id[kind][category]
        return {"id": int(segment["id"]), "category_id": category}


def _mean(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return float(sum(values) / len(values)) if len(values) else float("nan")


def _size(ids: np.ndarray) -> str:
    return f"{ids.shape[0]}x{ids.shape[1]}"
