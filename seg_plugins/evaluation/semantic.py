"""Semantic segmentation: Detectron2's figures, streamed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from seg_plugins.ops.run_length import encode_label_map
from seg_plugins.ops.segmentation_metrics import argmax_confusion, label_confusion

import numpy as np
import torch

from ..data import Dataset
from .boundary import BoundaryMeasures
from .confusion import divide, mean_iou, semantic_scores
from .errors import EvaluationError
from .ground_truth import LabelSource
from .streaming import StreamingEvaluator


class SemanticEvaluator(StreamingEvaluator):
    """mIoU, fwIoU, mACC, pACC and per-class IoU, accuracy and precision, in percent.

    Scores ``output["sem_seg"]``: (K, H, W) scores of any float type and device, an (H, W) integer
    label map, or for two classes (1, H, W) logits, at the size of the ground truth. The digits
    equal those of Detectron2's SemSegEvaluator. Memory is a few matrices of counts, whatever the
    number of images.

    Args:
        dataset_name: registered name, or the :class:`~seg_plugins.data.Dataset`, whose records
            have ``sem_seg_file_name`` and whose metadata has ``stuff_classes``.
        output_dir: folder for ``sem_seg_results.json`` and ``sem_seg_per_image.jsonl``; None
            writes nothing.
        boundary: accumulates the boundary measures as well (slower); see
            :class:`~seg_plugins.evaluation.boundary.BoundaryMeasures`.
        save_predictions: write ``sem_seg_predictions.json``, Detectron2's list of run-length
            masks per image and class, to `output_dir` while the images come.
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
        boundary: BoundaryMeasures | None = None,
        save_predictions: bool = False,
        distributed: bool = True,
        allow_missing: bool = False,
    ) -> None:
        dataset = Dataset.get(dataset_name)
        if not dataset.stuff:
            raise EvaluationError(
                f"'{dataset.name}' has no stuff_classes in its metadata, which label maps are "
                "scored by."
            )
        self.class_names: Sequence[str] = dataset.stuff.names
        self.ignore_label: int = dataset.ignore_label
        self._truth = LabelSource(dataset)
        self._dataset_ids = dataset.label_category_ids
        self.boundary = boundary
        super().__init__(
            dataset,
            output_dir,
            image_keys=[record["file_name"] for record in dataset.records],
            save_predictions=save_predictions,
            predictions_file="sem_seg_predictions.json",
            distributed=distributed,
            allow_missing=allow_missing,
        )

    @property
    def num_classes(self) -> int:
        """Number of classes, K."""
        return len(self.class_names)

    def reset(self) -> None:
        """Forget everything seen; called before each round of evaluation."""
        super().reset()
        size = self.num_classes + 1
        self.confusion = np.zeros((size, size), dtype=np.int64)
        if self.boundary:
            self.boundary.reset()

    def score_image(self, position: int, given: Mapping, output: Mapping) -> Mapping[str, Any]:
        """Add one image to the sums; its own figures are mIoU, as ``score``, and pACC.

        ``by_class`` is what a bootstrap over the images needs, see :func:`pixels_by_class`.
        """
        target = self._truth.read(position)
        labels, confusion = self._confusion(output["sem_seg"], target)
        if self.predictions:
            self.predictions.write(self._records(given["file_name"], labels))
        if self.boundary:
            self.boundary.add(labels, target, self.ignore_label)
        self.add_measures(position, output["sem_seg"], labels, target)
        self.confusion += confusion
        return {**image_scores(confusion), "by_class": pixels_by_class(confusion)}

    def add_measures(
        self, position: int, prediction: torch.Tensor, labels: np.ndarray, target: np.ndarray
    ) -> None:
        """For subclasses with further measures: one image's prediction, label map and truth."""

    def local_state(self) -> Any:
        """The sums of this process."""
        return self.confusion, self.boundary.state() if self.boundary else None

    def summarize(self, states: Sequence[Any]) -> dict[str, dict[str, float]]:
        """Scores of the sums of all processes."""
        self.confusion = np.sum([confusion for confusion, _ in states], axis=0)
        scores = semantic_scores(self.confusion, self.class_names)
        if self.boundary:
            parts = zip(*(state for _, state in states), strict=True)
            self.boundary.set_state([np.sum(part, axis=0) for part in parts])
            scores |= self.boundary.scores(self.class_names)
        return {self.task: scores}

    def extra_json(self) -> dict[str, Any]:
        """The confusion matrix (truth by prediction, ignored last) and its class names."""
        return {"classes": list(self.class_names), "confusion": self.confusion}

    def _records(self, file_name: str, labels: np.ndarray) -> Iterator[dict[str, Any]]:
        """Detectron2's records of one image: a run-length mask per class present."""
        size = list(labels.shape)
        if labels.dtype not in (np.uint8, np.uint16):
            labels = labels.astype(np.uint16)
        for label, counts in encode_label_map(labels).items():
            if label >= self.num_classes:
                continue  # "nothing" in a label map
            yield {
                "file_name": file_name,
                "category_id": self._dataset_ids.get(label, label),
                "segmentation": {"size": size, "counts": counts.decode("ascii")},
            }

    def _confusion(
        self, prediction: torch.Tensor, target: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Label map and confusion matrix of one image."""
        prediction = checked_prediction(prediction, target, self.num_classes)
        if prediction.ndim == 2:
            labels = prediction.cpu().numpy()
            return labels, label_confusion(labels, target, self.num_classes, self.ignore_label)
        return argmax_confusion(prediction, target, self.ignore_label)


def image_scores(confusion: np.ndarray) -> dict[str, float]:
    """mIoU over the classes of one image, as ``score``, and its pixel accuracy, in percent.

    Args:
        confusion: (K + 1, K + 1) pixel counts of the image, truth by prediction.
    """
    hits, labelled = confusion.diagonal()[:-1].sum(), confusion[:-1].sum()
    return {"score": 100 * mean_iou(confusion), "pACC": 100 * float(divide(hits, labelled))}


def pixels_by_class(confusion: np.ndarray) -> list[list[int]]:
    """[class, pixels of truth, of prediction, hit] of each class of one image that has any.

    Args:
        confusion: (K + 1, K + 1) pixel counts of the image, truth by prediction.
    """
    truth, predicted = confusion[:-1].sum(axis=1), confusion[:-1, :-1].sum(axis=0)
    seen = np.flatnonzero(truth + predicted)
    columns = seen, truth[seen], predicted[seen], confusion.diagonal()[seen]
    return np.stack(columns, axis=1).tolist()


def checked_prediction(prediction: Any, target: np.ndarray, num_classes: int) -> torch.Tensor:
    """The prediction as scores or labels, after a look at its shape.

    Args:
        prediction: (K, H, W) scores or (H, W) integer labels; for two classes also (1, H, W)
            logits of the second one, which become labels.
        target: (H, W) ground truth.
        num_classes: K.

    Raises:
        EvaluationError: another shape or type.
    """
    prediction = torch.as_tensor(prediction)
    if tuple(prediction.shape[-2:]) != target.shape:
        raise EvaluationError(
            f"the prediction is {_size(prediction.shape)} but the ground truth is "
            f"{_size(target.shape)} (height x width); predict at the size of the original image."
        )
    if prediction.ndim == 2:
        if prediction.is_floating_point():
            raise EvaluationError("an (H, W) prediction must hold integer labels, not scores.")
    elif prediction.ndim == 3 and prediction.shape[0] == 1 and num_classes == 2:
        return (prediction[0] > 0).to(torch.uint8)
    elif prediction.ndim != 3 or prediction.shape[0] != num_classes:
        raise EvaluationError(
            f"the prediction has shape {tuple(prediction.shape)}; expected ({num_classes}, H, W) "
            f"for {num_classes} classes."
        )
    return prediction


def _size(shape: Sequence[int]) -> str:
    return "x".join(str(int(side)) for side in shape[-2:])
