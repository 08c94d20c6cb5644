"""Counting operators behind the evaluators: compiled where the extension is built, else NumPy.

Both forms count with integers only, so they give the same digits. Counting runs on the CPU, on
NumPy's arrays; masks and label maps are row-major (height, width). Of scores on another device the
labels are taken there (:func:`argmax_confusion`), and one copy of them is all the host waits for.
"""

from __future__ import annotations

from typing import NoReturn

import numpy as np
import torch

from ._extension import load_extension


def compiled() -> bool:
    """Whether the compiled operators run (see :mod:`seg_plugins.ops._extension`)."""
    return load_extension().loaded


def as_tensor(array: np.ndarray) -> torch.Tensor:
    """The array as a CPU tensor, without a copy where its layout and type allow."""
    array = np.ascontiguousarray(array)
    if array.dtype in (np.uint32, np.int8):  # types the operators do not take
        array = array.astype(np.int64)
    elif not array.flags.writeable:  # PyTorch shares only memory that may be written
        array = array.copy()
    return torch.from_numpy(array)


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
        labels: (H, W), uint8 up to 256 classes, uint16 beyond.
        confusion: (K + 1, K + 1) int64, truth by prediction.

    Raises:
        ValueError: a target value that is neither a class nor `ignore_label`, with its place.
    """
    num_classes = scores.shape[0]
    scores = scores.detach()
    if not (compiled() and scores.device.type == "cpu" and scores.dtype in _EXACT_IN_FLOAT32):
        index = scores.argmax(dim=0).to(torch.uint8 if num_classes <= 256 else torch.int32)
        labels = index.cpu().numpy()
        labels = labels if num_classes <= 256 else labels.astype(np.uint16)
        return labels, label_confusion(labels, target, num_classes, ignore_label)
    operator = torch.ops.seg_plugins.argmax_confusion
    found, confusion, invalid = operator(scores.float(), as_tensor(target), ignore_label)
    if invalid >= 0:
        _raise_label_error(target, invalid, num_classes, ignore_label, "ground-truth")
    return found.numpy(), confusion.numpy()


# Their float32 copies keep the order of the values and the ties.
_EXACT_IN_FLOAT32 = (torch.float32, torch.float16, torch.bfloat16)


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
    if compiled():
        confusion, invalid_truth, invalid_label = torch.ops.seg_plugins.label_confusion(
            as_tensor(labels), as_tensor(target), num_classes, ignore_label
        )
        if invalid_truth >= 0:
            _raise_label_error(target, invalid_truth, num_classes, ignore_label, "ground-truth")
        if invalid_label >= 0:
            _raise_label_error(labels, invalid_label, num_classes, ignore_label, "predicted")
        return confusion.numpy()
    size = num_classes + 1
    # int32 holds the product of two sizes up to 46,340 and halves the traffic of int64.
    pair = _class_index(target, num_classes, ignore_label, "ground-truth") * size
    pair += _class_index(labels, num_classes, ignore_label, "predicted")
    return np.bincount(pair.reshape(-1), minlength=size * size).reshape(size, size)


def _class_index(labels: np.ndarray, num_classes: int, ignore_label: int, what: str) -> np.ndarray:
    ignored = labels == ignore_label
    invalid = ((labels < 0) | (labels >= num_classes)) & ~ignored
    if invalid.any():
        place = int(np.flatnonzero(invalid)[0])
        _raise_label_error(labels, place, num_classes, ignore_label, what)
    index = labels.astype(np.int32)
    index[ignored] = num_classes
    return index


def _raise_label_error(
    labels: np.ndarray, position: int, num_classes: int, ignore_label: int, what: str
) -> NoReturn:
    row, column = divmod(position, labels.shape[1])
    raise ValueError(
        f"{what} label {int(labels[row, column])} at row {row}, column {column} is outside the "
        f"{num_classes} classes (0..{num_classes - 1}) and is not the ignore label {ignore_label}."
    )


def pair_counts(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many pixels two segmentations of one image share, for each pair of their ids.

    Args:
        first: (H, W) integers, or (H, W, 3) uint8 holding ids as R + 256 G + 65536 B.
        second: the same, of the same size.

    Returns:
        pairs: (M, 2) int64 ids that meet, in ascending order.
        counts: (M,) int64 pixels.
    """
    if compiled():
        pairs, counts = torch.ops.seg_plugins.pair_counts(as_tensor(first), as_tensor(second))
        return pairs.numpy(), counts.numpy()
    a, b = _plain_ids(first), _plain_ids(second)
    if a.shape != b.shape:
        raise ValueError(f"the two maps differ in size: {a.shape} and {b.shape}")
    # Unique ids of each map first: their ranks make a small joint key whatever the ids are.
    a_ids, a_rank = np.unique(a, return_inverse=True)
    b_ids, b_rank = np.unique(b, return_inverse=True)
    joint = a_rank.reshape(-1) * len(b_ids) + b_rank.reshape(-1)
    key, counts = np.unique(joint, return_counts=True)
    return np.stack([a_ids[key // len(b_ids)], b_ids[key % len(b_ids)]], axis=1), counts


def triple_counts(
    ids: np.ndarray, truths: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How many pixels of each segment have each true and each predicted label, in one sweep.

    Args:
        ids: (H, W) uint16 segment ids; fastest where all pixels of an id have one true label.
        truths: (H, W) uint8.
        labels: (H, W) uint8.

    Returns:
        triples: (M, 3) int64 id, truth and label that meet, in ascending order.
        counts: (M,) int64 pixels.
    """
    if not ids.shape == truths.shape == labels.shape:
        shapes = f"{ids.shape}, {truths.shape} and {labels.shape}"
        raise ValueError(f"the three maps differ in size: {shapes}")
    if compiled():
        maps = (as_tensor(ids), as_tensor(truths), as_tensor(labels))
        triples, counts = torch.ops.seg_plugins.triple_counts(*maps)
        return triples.numpy(), counts.numpy()
    joint = (ids.astype(np.int64) << 16) + (truths.astype(np.int64) << 8) + labels
    key, counts = np.unique(joint, return_counts=True)
    return np.stack([key >> 16, key >> 8 & 255, key & 255], axis=1), counts


def _plain_ids(ids: np.ndarray) -> np.ndarray:
    if ids.ndim == 3:
        return ids.astype(np.int64) @ np.array([1, 256, 65536])
    return ids.astype(np.int64)


def mask_overlaps(
    masks: np.ndarray, segments: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels that each mask shares with each segment of an image.

    Args:
        masks: (N, H, W) bool or uint8, non-zero inside.
        segments: (H, W) ids in 0..65535.

    Returns:
        ids: (L,) int64 ids present in `segments`, ascending.
        areas: (L,) int64 pixels of each.
        overlaps: (N, L) int64; a row sums to the mask's area.
    """
    if compiled():
        found = torch.ops.seg_plugins.mask_overlaps(as_tensor(masks), as_tensor(segments))
        ids, areas, overlaps = (tensor.numpy() for tensor in found)
        return ids, areas, overlaps
    if masks.shape[1:] != segments.shape:
        raise ValueError(f"masks {masks.shape} and segments {segments.shape} differ in size")
    ids, rank, areas = np.unique(segments, return_inverse=True, return_counts=True)
    rank = rank.reshape(segments.shape)
    overlaps = [np.bincount(rank[mask != 0], minlength=len(ids)) for mask in masks]
    return ids.astype(np.int64), areas, np.array(overlaps, np.int64).reshape(-1, len(ids))
