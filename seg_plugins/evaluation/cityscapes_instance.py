"""Cityscapes' instance-level average precision in memory, without mask files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seg_plugins.ops.segmentation_metrics import mask_overlaps

import numpy as np
from PIL import Image

from ..data import Dataset
from ..io.images import read_label
from .average_precision import RECALL_STEPS, precision_at_recalls
from .cityscapes_files import (
    INSTANCE_LABELS,
    VOID_IDS,
    frame_name,
    ground_truth_files,
    label_of,
)
from .confusion import detection_scores
from .errors import EvaluationError
from .instance_predictions import CONFIDENCE, predicted_bitmasks, predicted_scores
from .streaming import StreamingEvaluator

OVERLAPS = np.arange(0.5, 1.0, 0.05)
#: Smaller truth neither counts nor makes a detection wrong.
MIN_REGION_SIZE = 100
_RECORD = np.dtype([("score", "f8"), ("label", "u1"), ("hit", "u2"), ("miss", "u2")])
_BITS = 1 << np.arange(len(OVERLAPS))


class CityscapesInstanceEvaluator(StreamingEvaluator):
    """AP and AP50 over classes, and of each, in percent.

    The digits are those of cityscapesscripts' ``evalInstanceLevelSemanticLabeling`` on the
    ``instanceIds`` images below the metadata's ``gt_dir``. Scores ``output["instances"]``:
    ``scores``, ``pred_classes`` and ``pred_masks`` ((N, H, W) or
    :class:`~seg_plugins.ops.run_length.RunLengthMasks`). What stays of a detection is a record
    of 13 bytes.

    Args:
        dataset_name: dataset whose metadata has ``gt_dir`` and ``thing_classes``.
        output_dir: folder for ``instances_results.json``; None writes nothing.
        save_predictions: write the official result format, a text file per image and a PNG per
            mask, to ``output_dir/cityscapes_instances``.
        distributed: gather over all processes.
        allow_missing: score although some images of the dataset never came.
    """

    task = "instances"
    output_key = "instances"

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
        self._files = list(ground_truth_files(dataset.required("gt_dir"), "instanceIds").items())
        self._labels = [label.name for label in INSTANCE_LABELS]
        names = dataset.things.names
        unknown = set(names) - set(self._labels)
        self._label_of_class = [
            self._labels.index(name) if name not in unknown else -1 for name in names
        ]
        super().__init__(
            dataset,
            output_dir,
            image_keys=[name for name, _ in self._files],
            save_predictions=save_predictions,
            distributed=distributed,
            allow_missing=allow_missing,
        )

    def reset(self) -> None:
        """Forget everything seen; called before each round of evaluation."""
        super().reset()
        self._records = bytearray()
        # Per threshold and label: truths that nothing matched; per label: truths that count.
        self._missed = np.zeros((len(OVERLAPS), len(self._labels)), np.int64)
        self._truths = np.zeros(len(self._labels), np.int64)

    def key_of(self, given: Mapping) -> str:
        """City, sequence and frame of the input's file."""
        return frame_name(given[self.image_key])

    def score_image(self, position: int, given: Mapping, output: Mapping) -> Mapping[str, float]:
        """Match the detections of one image and keep a record of each.

        The image's own ``score`` is F1 at overlap 0.5 of the detections that score 0.5 or more.
        """
        name, file = self._files[position]
        instances = output["instances"]
        segments = read_label(str(file))
        masks = predicted_bitmasks(instances, segments.shape)
        classes = instances.pred_classes.cpu().numpy()
        if classes.size and not 0 <= classes.min() <= classes.max() < len(self._label_of_class):
            raise EvaluationError(
                f"predicted classes {classes.min()}..{classes.max()} are outside the "
                f"{len(self._label_of_class)} of '{self.dataset_name}'."
            )
        scores = predicted_scores(instances).astype(np.float64)
        found_labels = np.array([self._label_of_class[c] for c in classes], np.int64)
        if self.saving_to:
            folder = self.saving_to / "cityscapes_instances"
            write_official_instances(folder, name, masks, found_labels, scores)
        ids, areas, overlaps = mask_overlaps(masks, segments)
        # The reference skips empty masks and labels without instances.
        kept = (overlaps.sum(axis=1) > 0) & (found_labels >= 0)
        truth_labels = [label_of(instance_id).name for instance_id in ids.tolist()]
        truths, records = int(self._truths.sum()), len(self._records)
        for k, label in enumerate(self._labels):
            columns = np.array([name == label for name in truth_labels], bool)
            rows = np.flatnonzero(kept & (found_labels == k))
            if not (columns.any() or rows.size):
                continue
            void = overlaps[rows][:, np.isin(ids, list(VOID_IDS))].sum(axis=1)
            self._match(
                k,
                scores[rows],
                overlaps[rows].sum(axis=1),
                overlaps[rows][:, columns],
                void,
                ids[columns],
                areas[columns],
            )
        own = np.frombuffer(self._records[records:], _RECORD)
        own = own[own["score"] >= CONFIDENCE]
        hit, miss = (own[kind] & _BITS[0] for kind in ("hit", "miss"))
        return detection_scores(hit, miss, int(self._truths.sum()) - truths)

    def _match(
        self,
        k: int,
        scores: np.ndarray,
        pixels: np.ndarray,
        shared: np.ndarray,
        void: np.ndarray,
        ids: np.ndarray,
        areas: np.ndarray,
    ) -> None:
        """One label of one image: D detections with (D, G) `shared` pixels of G truths."""
        group, small = ids < 1000, areas < MIN_REGION_SIZE
        counted = ~group & ~small
        self._truths[k] += np.count_nonzero(counted)
        iou = shared / (areas + pixels[:, None] - shared)
        # The reference adds a group that is small as well twice.
        ignored = void + shared[:, group].sum(axis=1) + shared[:, small].sum(axis=1)
        records = np.zeros(len(scores), _RECORD)
        records["score"], records["label"] = scores, k
        for step, threshold in enumerate(OVERLAPS):
            close = iou > threshold
            hit = np.zeros(len(scores), bool)
            miss = ~close.any(axis=1) & (ignored / pixels <= threshold)
            for truth in np.flatnonzero(counted):
                claims = np.flatnonzero(close[:, truth])
                if not claims.size:
                    self._missed[step, k] += 1
                    continue
                # The best of several claims is right, the others are wrong.
                miss[claims] = True
                best = claims[np.argmax(scores[claims])]
                hit[best], miss[best] = True, False
            records["hit"] |= np.where(hit, _BITS[step], 0).astype(np.uint16)
            records["miss"] |= np.where(miss, _BITS[step], 0).astype(np.uint16)
        self._records += records.tobytes()

    def local_state(self) -> Any:
        """The records and counts of this process."""
        return bytes(self._records), self._missed, self._truths

    def summarize(self, states: Sequence[Any]) -> dict[str, dict[str, float]]:
        """Average precision over all processes' records."""
        records = np.concatenate([np.frombuffer(part, _RECORD) for part, _, _ in states])
        missed = np.sum([part for _, part, _ in states], axis=0)
        truths = np.sum([part for _, _, part in states], axis=0)
        ap = np.full((len(self._labels), len(OVERLAPS)), np.nan)
        self._curves = np.full((len(self._labels), len(RECALL_STEPS)), np.nan)
        for k in np.flatnonzero(truths):
            own = records[records["label"] == k]
            ranked = own[np.argsort(-own["score"], kind="stable")]
            hits, misses = ((ranked[kind] & _BITS[0] != 0)[None] for kind in ("hit", "miss"))
            self._curves[k] = precision_at_recalls(hits, misses, int(truths[k]))[0]
            for step, bit in enumerate(_BITS):
                hit, miss = own["hit"] & bit != 0, own["miss"] & bit != 0
                scores = np.concatenate([own["score"][hit], own["score"][miss]])
                true = np.arange(len(scores)) < np.count_nonzero(hit)
                ap[k, step] = (
                    average_precision(scores, true, missed[step, k]) if len(scores) else 0.0
                )
        results = {"AP": _nanmean(ap), "AP50": _nanmean(ap[:, 0])}
        for name, row in zip(self._labels, ap, strict=True):
            results |= {f"AP-{name}": np.average(row), f"AP50-{name}": row[0]}
        return {"segm": {key: 100 * float(value) for key, value in results.items()}}

    def extra_json(self) -> dict[str, Any]:
        """Precision-recall curves at an overlap of 0.5."""
        curves = {
            "recall": RECALL_STEPS.round(2),
            "AP50": [round(_nanmean(column), 5) for column in self._curves.T],
            "AP50_by_class": dict(zip(self._labels, self._curves.round(5), strict=True)),
        }
        return {"pr_curves": {"segm": curves}}


def average_precision(scores: np.ndarray, true: np.ndarray, missed: int) -> float:
    """Cityscapes' area under the precision-recall curve.

    Args:
        scores: (D,) of the detections that count.
        true: (D,) bool, whether each matched.
        missed: truths that nothing matched.
    """
    order = np.argsort(scores)
    hits_so_far = np.append(np.cumsum(true[order].astype(float)), 0)
    _, first = np.unique(scores[order], return_index=True)
    # One operating point per distinct score, keeping what scores at least as much.
    below = hits_so_far[first - 1]
    hits = hits_so_far[-2] - below
    wrong = len(scores) - first - hits
    precision = np.append(hits / (hits + wrong), 1.0)
    recall = np.append(hits / (hits + below + missed), 0.0)
    widths = np.convolve(np.concatenate([recall[:1], recall, [0.0]]), [-0.5, 0, 0.5], "valid")
    return float(np.dot(precision, widths))


def write_official_instances(
    folder: Path, name: str, masks: np.ndarray, labels: np.ndarray, scores: np.ndarray
) -> None:
    """Write one image's detections as the official scripts read them.

    Args:
        folder: receives ``<name>_pred.txt`` and a PNG per mask.
        name: city, sequence and frame.
        masks: (N, H, W), non-zero inside.
        labels: (N,) index into `INSTANCE_LABELS`, negative ones are left out.
        scores: (N,).
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for i, (mask, label, score) in enumerate(zip(masks, labels, scores, strict=True)):
        if label < 0:
            continue
        file = f"{name}_{i}.png"
        Image.fromarray((mask != 0).astype(np.uint8) * 255).save(folder / file)
        lines.append(f"{file} {INSTANCE_LABELS[label].id} {float(score)!r}\n")
    (folder / f"{name}_pred.txt").write_text("".join(lines))


def _nanmean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
