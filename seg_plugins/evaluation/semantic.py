"""Semantic segmentation: Detectron2's figures, streamed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seg_plugins.ops.segmentation_metrics import argmax_confusion, label_confusion

import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog

from .confusion import semantic_scores
from .errors import EvaluationError
from .ground_truth import LabelSource
from .streaming import StreamingEvaluator


class SemanticEvaluator(StreamingEvaluator):
    """mIoU, fwIoU, mACC, pACC and per-class IoU, accuracy and precision, in percent.

    Scores ``output["sem_seg"]``: (K, H, W) scores of any float type and device, or an (H, W)
    integer label map, at the size of the ground truth. The digits equal those of Detectron2's
    SemSegEvaluator. Memory is one confusion matrix, whatever the number of images.

    Args:
        dataset_name: dataset whose dicts have ``file_name`` and ``sem_seg_file_name`` and whose
            metadata has ``stuff_classes`` and ``ignore_label``.
        output_dir: folder for ``sem_seg_results.json``; None writes nothing.
        distributed: gather over all processes.
        allow_missing: score although some images of the dataset never came.
    """

    task = "sem_seg"
    output_key = "sem_seg"

    def __init__(
        self,
        dataset_name: str,
        output_dir: str | Path | None = None,
        *,
        distributed: bool = True,
        allow_missing: bool = False,
    ) -> None:
        metadata = MetadataCatalog.get(dataset_name)
        self.class_names: Sequence[str] = metadata.stuff_classes
        self.ignore_label: int = metadata.get("ignore_label", 255)
        records = DatasetCatalog.get(dataset_name)
        self._truth = LabelSource(records, metadata)
        self.confusion = self._empty_confusion()
        super().__init__(
            dataset_name,
            output_dir,
            image_keys=[record["file_name"] for record in records],
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
        self.confusion = self._empty_confusion()

    def score_image(self, position: int, given: Mapping, output: Mapping) -> None:
        """Add one image to the confusion matrix."""
        target = self._truth.read(position)
        _, confusion = self._confusion(output["sem_seg"], target)
        self.confusion += confusion

    def local_state(self) -> Any:
        """This process's confusion matrix."""
        return self.confusion

    def summarize(self, states: Sequence[Any]) -> dict[str, dict[str, float]]:
        """Scores of the summed confusion matrix."""
        self.confusion = np.sum(states, axis=0)
        return {self.task: semantic_scores(self.confusion, self.class_names)}

    def extra_json(self) -> dict[str, Any]:
        """The confusion matrix (truth by prediction, ignored last) and its class names."""
        return {"classes": list(self.class_names), "confusion": self.confusion}

    def _empty_confusion(self) -> np.ndarray:
        return np.zeros((self.num_classes + 1, self.num_classes + 1), dtype=np.int64)

    def _confusion(
        self, prediction: torch.Tensor, target: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Label map and confusion matrix of one image; checks the prediction's shape."""
        prediction = torch.as_tensor(prediction)
        if tuple(prediction.shape[-2:]) != target.shape:
            raise EvaluationError(
                f"the prediction is {_size(prediction.shape)} but the ground truth is "
                f"{_size(target.shape)} (height x width); predict at the size of the original "
                f"image."
            )
        if prediction.ndim == 2:
            if prediction.is_floating_point():
                raise EvaluationError("an (H, W) prediction must hold integer labels, not scores.")
            labels = prediction.cpu().numpy()
            return labels, label_confusion(labels, target, self.num_classes, self.ignore_label)
        if prediction.ndim != 3 or prediction.shape[0] != self.num_classes:
            raise EvaluationError(
                f"the prediction has shape {tuple(prediction.shape)}; expected "
                f"({self.num_classes}, H, W) for the {self.num_classes} classes of "
                f"'{self.dataset_name}'."
            )
        return argmax_confusion(prediction, target, self.ignore_label)


def _size(shape: Sequence[int]) -> str:
    return "x".join(str(int(side)) for side in shape[-2:])
