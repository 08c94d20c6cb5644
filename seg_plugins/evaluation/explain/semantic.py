"""What is behind the mIoU of saved label maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from seg_plugins.ops.segmentation_metrics import label_confusion

import cv2
import numpy as np

from ...io.masks import encode_bitmasks
from ..confusion import mean_iou, semantic_scores
from ..ground_truth import LabelSource
from .border import BorderErrors
from .saved import SavedLabels, SavedRun

#: Confusion pairs that are listed.
MOST = 8


def explain_semantic(run: SavedRun) -> dict[str, Any]:
    """Errors by distance to the border, and the classes that are confused most.

    Returns:
        ``border``, the rows of :meth:`.border.BorderErrors.table`, and ``confusion_pairs``: dicts
        with ``true`` and ``predicted`` class, ``pixels``, their ``share`` of all wrong pixels and
        of the true class (``share_of_class``), in percent; and of the image with most of them the
        ``file_name``, ``pixels_there``, the ``box`` of the largest such region and the ``mask`` of
        all (COCO's run lengths).

    Raises:
        EvaluationError: the predictions are of another evaluation.
    """
    dataset = run.dataset
    void = len(dataset.stuff)
    source, saved = LabelSource(dataset), SavedLabels(run.predictions, dataset)

    def image(position: int) -> tuple[np.ndarray, np.ndarray]:
        target = source.read(position)
        truth = np.where(target == dataset.ignore_label, void, target).astype(np.int32)
        return truth, saved.read(position, truth.shape)

    border = BorderErrors()
    total = np.zeros((void + 1, void + 1), np.int64)
    # Of each pair of classes, the pixels of the worst image and its position.
    most, worst = np.zeros((2, void, void), np.int64)
    slices = run.slices(dataset.records)
    parts = {name: np.zeros_like(total) for name in slices}
    for position in range(len(source)):
        truth, labels = image(position)
        counts = label_confusion(labels, truth, void, void)
        border.add(labels, truth, void)
        total += counts
        for name, positions in slices.items():
            if position in positions:
                parts[name] += counts
        wrong = _errors(counts)
        worst[wrong > most] = position
        most = np.maximum(most, wrong)
    run.check("sem_seg", "mIoU", semantic_scores(total, dataset.stuff.names)["mIoU"])
    pairs = _pairs(total, dataset.stuff.names)
    for pair, true, predicted in pairs:
        position = int(worst[true, predicted])
        truth, labels = image(position)
        mask = (truth == true) & (labels == predicted)
        pair["file_name"] = str(source.record(position)["file_name"])
        pair["pixels_there"] = int(most[true, predicted])
        pair["box"] = _largest_region(mask)
        pair["mask"] = _text(encode_bitmasks(mask[None])[0])
    return {
        "border": border.table(),
        "confusion_pairs": [pair for pair, _, _ in pairs],
        "image_slices": [
            {"slice": name, "images": len(slices[name]), "mIoU": 100 * mean_iou(part)}
            for name, part in parts.items()
        ],
    }


def _errors(counts: np.ndarray) -> np.ndarray:
    """(K, K) pixels that are predicted as another class."""
    wrong = counts[:-1, :-1].copy()
    np.fill_diagonal(wrong, 0)
    return wrong


def _pairs(total: np.ndarray, names: Sequence[str]) -> list[tuple[dict[str, Any], int, int]]:
    """The pairs with most pixels: what is said of them, true and predicted class."""
    wrong = _errors(total)
    # As in the scores: pixels for which nothing was predicted are wrong as well.
    errors = total[:-1].sum() - total.diagonal()[:-1].sum()
    pairs = []
    for place in np.argsort(-wrong, axis=None, kind="stable")[:MOST]:
        true, predicted = (int(k) for k in np.unravel_index(place, wrong.shape))
        pixels = int(wrong[true, predicted])
        if not pixels:
            break
        pair: dict[str, Any] = {
            "true": names[true],
            "predicted": names[predicted],
            "pixels": pixels,
            "share": 100 * pixels / int(errors),
            "share_of_class": 100 * pixels / int(total[true].sum()),
        }
        pairs.append((pair, true, predicted))
    return pairs


def _largest_region(mask: np.ndarray) -> list[int]:
    """x, y, width and height of the largest connected region."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    return stats[largest, : cv2.CC_STAT_AREA].tolist()


def _text(rle: Mapping[str, Any]) -> dict[str, Any]:
    counts = rle["counts"]
    return {
        "size": list(rle["size"]),
        "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts,
    }
