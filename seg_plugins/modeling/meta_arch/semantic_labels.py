"""From the label maps of samples to the targets of a batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...config import ConfigError


def batch_labels(
    samples: list[dict[str, Any]],
    size: tuple[int, int],
    *,
    num_classes: int,
    ignore_value: int,
    device: torch.device,
) -> tuple[Tensor, Tensor | None]:
    """Labels (N, H, W) int64, padded with the ignore label, and factors by pixel if there are.

    Args:
        samples: each with ``sem_seg`` (h, w) and perhaps ``sem_seg_weights`` of the same size.
        size: (H, W) of the batch.
        num_classes: see :func:`check_labels`.
        ignore_value: the same.
        device: of the result.

    Raises:
        ValueError: a sample without labels, or with labels outside the classes.
    """
    targets = torch.full((len(samples), *size), ignore_value, dtype=torch.int64)
    weighted = any("sem_seg_weights" in sample for sample in samples)
    weights = torch.ones(len(samples), *size) if weighted else None
    for i, sample in enumerate(samples):
        if "sem_seg" not in sample:
            raise ValueError(
                f"{source_of(sample)} has no 'sem_seg' label map, which training needs: set "
                "INPUT.MAPPER to one that gives it (SemanticMapper, PanopticMapper), or "
                "DATASETS.TRAIN to a dataset with label maps"
            )
        labels = sample["sem_seg"].to("cpu", torch.int64)
        check_labels(labels, num_classes, ignore_value, source_of(sample))
        height, width = labels.shape
        targets[i, :height, :width] = labels
        if weights is not None and "sem_seg_weights" in sample:
            weights[i, :height, :width] = sample["sem_seg_weights"]
    if weights is not None:
        weights = weights.to(device, non_blocking=True)
    return targets.to(device, non_blocking=True), weights


def label_range(
    head: nn.Module, num_classes: int | None, ignore_value: int | None
) -> tuple[int, int]:
    """Number of classes and ignore label: as given, or else as the head has them.

    Raises:
        ConfigError: neither tells the number of classes.
    """
    count = num_classes or getattr(head, "num_classes", None)
    if count is None:
        raise ConfigError(f"{type(head).__name__} has no num_classes: give the system num_classes")
    return count, getattr(head, "ignore_value", 255) if ignore_value is None else ignore_value


def check_labels(labels: Tensor, num_classes: int, ignore_value: int, source: str) -> None:
    """Refuse a label map (H, W) with values outside the classes, before a kernel crashes on them.

    With one class, labels are 1 (the class) and 0 (everything else).

    Raises:
        ValueError: names the source, the value and the fix.
    """
    highest = max(num_classes - 1, 1)
    wrong = labels[((labels < 0) | (labels > highest)) & (labels != ignore_value)]
    if wrong.numel():
        raise ValueError(
            f"{source}: label {int(wrong[0])} in {wrong.numel()} pixels, but "
            f"MODEL.SEM_SEG_HEAD.NUM_CLASSES {num_classes} allows 0 to {highest} and the ignore "
            f"label {ignore_value}. Correct the label file, NUM_CLASSES or IGNORE_VALUE."
        )


def source_of(sample: dict[str, Any]) -> str:
    """What to call a sample in an error: the file of its labels, or of its image."""
    return str(sample.get("sem_seg_file_name") or sample.get("file_name") or "A sample")
