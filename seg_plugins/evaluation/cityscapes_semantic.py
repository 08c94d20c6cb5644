"""Cityscapes' pixel-level scores in memory: IoU and iIoU of classes and categories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from seg_plugins.ops.segmentation_metrics import argmax_confusion, label_confusion, triple_counts

import cv2
import numpy as np
from cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling import args as official
from cityscapesscripts.helpers.labels import category2labels
from PIL import Image

from ..data import Dataset
from ..io.images import read_label
from .cityscapes_files import (
    EVALUATED,
    IGNORE,
    frame_name,
    ground_truth_files,
    id_of_train_id,
    label_of,
    train_id_of_id,
)
from .confusion import divide, semantic_scores
from .errors import EvaluationError
from .fixed_point import from_fixed, to_fixed
from .semantic import checked_prediction, image_scores
from .streaming import StreamingEvaluator

_INSTANCE_CLASSES = [x.trainId for x in EVALUATED if x.hasInstances]
# Train ids by category, of categories with evaluated labels, in table order.
_CATEGORIES = {
    name: [x.trainId for x in members if not x.ignoreInEval]
    for name, members in category2labels.items()
    if not all(x.ignoreInEval for x in members)
}
# Categories all of whose labels (ignored ones included) have instances.
_INSTANCE_CATEGORIES = [
    name
    for name, members in category2labels.items()
    if name in _CATEGORIES and all(x.hasInstances for x in members if x.id >= 0)
]
# Category of each train id, by place in the table above; -1 of ids that are not evaluated.
_CATEGORY_OF = np.full(256, -1)
for _place, _members in enumerate(_CATEGORIES.values()):
    _CATEGORY_OF[_members] = _place


class CityscapesSemanticEvaluator(StreamingEvaluator):
    """IoU, iIoU, IoU_sup and iIoU_sup under Detectron2's names, and the scores of each class.

    The digits are those of cityscapesscripts' ``evalPixelLevelSemanticLabeling``, from the
    ``labelIds`` and ``instanceIds`` images below the metadata's ``gt_dir``; ``mIoU`` repeats
    ``IoU`` under the common name. Scores ``output["sem_seg"]``: (19, H, W) scores, or an (H, W)
    map of train ids.

    Args:
        dataset_name: dataset whose metadata has ``gt_dir``.
        output_dir: folder for ``sem_seg_results.json``; None writes nothing.
        instance_scores: compute iIoU (reads the instance images as well).
        save_predictions: write label-id PNGs to ``output_dir/cityscapes_sem_seg``, the folder
            that the official scripts and the test server take.
        distributed: gather over all processes.
        allow_missing: score although some images of the dataset never came.
    """

    task = "sem_seg"
    output_key = "sem_seg"

    def __init__(
        self,
        dataset_name: str | Dataset,
        output_dir: str | Path | None = None,
        *,
        instance_scores: bool = True,
        save_predictions: bool = False,
        distributed: bool = True,
        allow_missing: bool = False,
    ) -> None:
        dataset = Dataset.get(dataset_name)
        self._label_files = ground_truth_files(dataset.required("gt_dir"), "labelIds")
        self._instance_scores = instance_scores
        # Decodes the instance image while the labels are decoded.
        self._reader = ThreadPoolExecutor(1)
        super().__init__(
            dataset,
            output_dir,
            image_keys=list(self._label_files),
            save_predictions=save_predictions,
            distributed=distributed,
            allow_missing=allow_missing,
        )

    def reset(self) -> None:
        """Forget everything seen; called before each round of evaluation."""
        super().reset()
        size = len(EVALUATED) + 1
        self.confusion = np.zeros((size, size), np.int64)
        # Weighted true positives and false negatives, in fixed point, of instances by class and
        # of the same instances by category.
        self._classes = np.zeros((2, len(EVALUATED)), object)
        self._categories = np.zeros((2, len(_CATEGORIES)), object)

    def key_of(self, given: Mapping) -> str:
        """City, sequence and frame of the input's file."""
        return frame_name(given[self.image_key])

    def score_image(self, position: int, given: Mapping, output: Mapping) -> Mapping[str, float]:
        """Add one image to the sums; its own figures are mIoU, as ``score``, and pACC."""
        name, file = list(self._label_files.items())[position]
        if self._instance_scores:
            instance_file = str(file).replace("_labelIds", "_instanceIds")
            reading = self._reader.submit(read_label, instance_file)
        label_ids = read_label(str(file))
        if label_ids.dtype != np.uint8:
            raise EvaluationError(f"{file} holds {label_ids.dtype}, not 8-bit label ids.")
        prediction = checked_prediction(output["sem_seg"], label_ids, len(EVALUATED))
        if prediction.ndim == 3:
            target = cv2.LUT(label_ids, train_id_of_id())
            labels, confusion = argmax_confusion(prediction, target, IGNORE)
        else:
            labels = prediction.cpu().numpy()
            # Other types are looked at here: a label must not become another one in 8 bits.
            if labels.dtype != np.uint8 or not self._instance_scores:
                confusion = _confusion(labels, label_ids)
                labels = labels.astype(np.uint8, copy=False)
        if self._instance_scores:
            confusion = self._count_instances(reading.result(), label_ids, labels)
        if self.saving_to:
            folder = self.saving_to / "cityscapes_sem_seg"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(id_of_train_id()[labels]).save(folder / f"{name}_pred.png")
        self.confusion += confusion
        return image_scores(confusion)

    def _count_instances(
        self, instances: np.ndarray, label_ids: np.ndarray, labels: np.ndarray
    ) -> np.ndarray:
        """Add the weighted pixels of each instance; gives the confusion, from the same count."""
        if instances.dtype == np.uint8:  # an image without instances may be stored so
            instances = instances.astype(np.uint16)
        if instances.shape != labels.shape or instances.dtype != np.uint16:
            raise EvaluationError(
                f"its instanceIds image is {instances.dtype} of {instances.shape}; expected 16 "
                f"bits and {labels.shape}, the size of its labelIds."
            )
        triples, counts = triple_counts(instances, label_ids, labels)
        of_pixel, stored, found = triples.T
        if (found[found != IGNORE] >= len(EVALUATED)).any():
            return _confusion(labels, label_ids)  # raises, with the place
        size = len(EVALUATED) + 1
        rows, columns = (np.minimum(x, size - 1) for x in (train_id_of_id()[stored], found))
        confusion = np.zeros((size, size), np.int64)
        np.add.at(confusion, (rows, columns), counts)

        ids, starts = np.unique(of_pixel, return_index=True)
        true_labels = [label_of(instance_id) for instance_id in ids.tolist()]
        of_id = np.array([x.trainId for x in true_labels])[np.searchsorted(ids, of_pixel)]
        same_class = np.where(found == of_id, counts, 0)
        same_category = np.where(_CATEGORY_OF[found] == _CATEGORY_OF[of_id], counts, 0)
        sums = (np.add.reduceat(x, starts).tolist() for x in (counts, same_class, same_category))
        for instance_id, label, pixels, hits, near_hits in zip(
            ids.tolist(), true_labels, *sums, strict=True
        ):
            if instance_id <= 1000 or label.ignoreInEval:
                continue
            weight = official.avgClassSize[label.name] / float(pixels)
            _add_weighted(self._classes[:, label.trainId], pixels, hits, weight)
            if label.category in _INSTANCE_CATEGORIES:
                category = self._categories[:, _CATEGORY_OF[label.trainId]]
                _add_weighted(category, pixels, near_hits, weight)
        return confusion

    def local_state(self) -> Any:
        """The sums of this process."""
        return self.confusion, self._classes, self._categories

    def summarize(self, states: Sequence[Any]) -> dict[str, dict[str, float]]:
        """Scores from the sums of all processes."""
        sums = [np.sum(part, axis=0) for part in zip(*states, strict=True)]
        self.confusion, self._classes, self._categories = sums
        names = [label.name for label in EVALUATED]
        inside = self.confusion[:-1, :-1]
        hits = inside.diagonal()
        missed = self.confusion[:-1].sum(axis=1) - hits
        false = inside.sum(axis=0) - hits
        iou = divide(hits, hits + missed + false)
        group_iou, group_false = [], []
        for members in _CATEGORIES.values():
            others = [k for k in range(len(names)) if k not in members]
            group_hits = inside[np.ix_(members, members)].sum()
            group_false.append(inside[np.ix_(others, members)].sum())
            # Truth of the category, whatever was predicted for it.
            truth = self.confusion[members].sum()
            group_iou.append(float(divide(group_hits, truth + group_false[-1])))
        scores = {"IoU": _mean(iou), "IoU_sup": _mean(group_iou)}
        if self._instance_scores:
            with_instances = np.isin(np.arange(len(names)), _INSTANCE_CLASSES)
            iiou = np.where(with_instances, _weighted_iou(self._classes, false), np.nan)
            groups = np.isin(list(_CATEGORIES), _INSTANCE_CATEGORIES)
            group_iiou = _weighted_iou(self._categories, np.array(group_false))
            group_iiou = np.where(groups, group_iiou, np.nan)
            scores |= {"iIoU": _mean(iiou), "iIoU_sup": _mean(group_iiou)}
            scores |= {f"iIoU-{names[k]}": iiou[k] for k in _INSTANCE_CLASSES}
        scores = {key: 100 * float(value) for key, value in scores.items()}
        common = semantic_scores(self.confusion, names)
        common |= {f"IoU-{name}": 100 * value for name, value in zip(names, iou, strict=True)}
        return {self.task: {**common, **scores}}

    def extra_json(self) -> dict[str, Any]:
        """The confusion matrix of train ids (truth by prediction, ignored last)."""
        return {"classes": [x.name for x in EVALUATED], "confusion": self.confusion}


def _confusion(labels: np.ndarray, label_ids: np.ndarray) -> np.ndarray:
    target = cv2.LUT(label_ids, train_id_of_id())
    return label_confusion(labels, target, len(EVALUATED), IGNORE)


def _add_weighted(sums: np.ndarray, pixels: int, hits: int, weight: float) -> None:
    sums[0] += to_fixed(float(hits) * weight)
    sums[1] += to_fixed(float(pixels - hits) * weight)


def _weighted_iou(sums: np.ndarray, false: np.ndarray) -> np.ndarray:
    hits = np.array([from_fixed(total) for total in sums[0]], float)
    missed = np.array([from_fixed(total) for total in sums[1]], float)
    return divide(hits, hits + false + missed)


def _mean(values: Sequence[float] | np.ndarray) -> float:
    known = [float(value) for value in values if not np.isnan(value)]
    return sum(known) / len(known) if known else float("nan")
