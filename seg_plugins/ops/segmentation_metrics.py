"""Counting operators behind the evaluators: compiled where the extension is built, else NumPy.

Both forms count with integers only, so they give the same digits. All tensors and arrays are on
the CPU; masks and label maps are row-major (height, width).
"""

from __future__ import annotations

import numpy as np
import torch


def argmax_confusion(
    scores: torch.Tensor, target: np.ndarray, ignore_label: int
) -> tuple[np.ndarray, np.ndarray]:
    """Label map of the highest score and its confusion with the truth, in one pass.

    Args:
        scores: (K, H, W) floating point, on any device; the first of equal maxima wins and NaN
            counts as highest, as in ``torch.argmax``.
        target: (H, W) integers: classes 0..K-1 or `ignore_label`.
        ignore_label: value of `target` that is not scored (counted in the last row).

    Returns:
        labels: (H, W), uint8 up to 256 classes, int16 beyond.
        confusion: (K + 1, K + 1) int64, truth by prediction.

    Raises:
        ValueError: a target value that is neither a class nor `ignore_label`, with its place.
    """
    num_classes = scores.shape[0]
    labels = scores.detach().argmax(dim=0)
    labels = labels.to(torch.uint8 if num_classes <= 256 else torch.int16).cpu().numpy()
    return labels, label_confusion(labels, target, num_classes, ignore_label)


def label_confusion(
    labels: np.ndarray, target: np.ndarray, num_classes: int, ignore_label: int
) -> np.ndarray:
    """Confusion of two label maps.

    Args:
        labels: (H, W) predicted integers: classes 0..K-1, or `ignore_label` for "nothing".
        target: (H, W) integers: classes 0..K-1 or `ignore_label`.
        num_classes: K.
        ignore_label: counted in the last row (truth) and the last column (prediction).

    Returns:
        (K + 1, K + 1) int64 pixel counts, truth by prediction.

    Raises:
        ValueError: another value in either map, with its place.
    """
    size = num_classes + 1
    # int32 holds the product of two sizes below 46,341 and halves the traffic of int64.
    pair = _class_index(target, num_classes, ignore_label, "ground-truth") * size
    pair += _class_index(labels, num_classes, ignore_label, "predicted")
    return np.bincount(pair.reshape(-1), minlength=size * size).reshape(size, size)


def _class_index(labels: np.ndarray, num_classes: int, ignore_label: int, what: str) -> np.ndarray:
    index = labels.astype(np.int32)
    index[labels == ignore_label] = num_classes
    invalid = (index < 0) | (index > num_classes)
    # The value K itself is only valid as the image of the ignore label.
    invalid |= (index == num_classes) & (labels != ignore_label)
    if invalid.any():
        raise_label_error(labels, int(np.flatnonzero(invalid)[0]), num_classes, ignore_label, what)
    return index


def raise_label_error(
    labels: np.ndarray, position: int, num_classes: int, ignore_label: int, what: str
) -> None:
    """Raise the ValueError for the value at flat `position` of a label map."""
    row, column = divmod(position, labels.shape[1])
    raise ValueError(
        f"{what} label {int(labels[row, column])} at row {row}, column {column} is outside the "
        f"{num_classes} classes (0..{num_classes - 1}) and is not the ignore label {ignore_label}."
    )
