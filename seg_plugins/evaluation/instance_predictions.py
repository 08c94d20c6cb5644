"""Detectron2's Instances as arrays: boxes, and masks in any of their forms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from seg_plugins.ops.run_length import RunLengthMasks

import numpy as np
import torch
from detectron2.structures import Boxes

from .errors import EvaluationError

#: Score from which a detection counts in the figures of a single image.
CONFIDENCE = 0.5


class StatedBoxes(Boxes):
    """Boxes of a results file, which states their sides: corners would round them.

    Args:
        stated: (N, 4) float64 x, y, width, height in pixels.
    """

    def __init__(self, stated: np.ndarray) -> None:
        corners = np.concatenate([stated[:, :2], stated[:, :2] + stated[:, 2:]], axis=1)
        super().__init__(torch.from_numpy(corners))
        self.stated = stated


def predicted_boxes(instances: Any) -> np.ndarray:
    """(N, 4) float64 x, y, width, height; subtracted in the model's own precision, as Detectron2.

    Args:
        instances: with ``pred_boxes``.
    """
    if isinstance(instances.pred_boxes, StatedBoxes):
        return instances.pred_boxes.stated
    tensor = instances.pred_boxes.tensor.detach().cpu()
    if tensor.dtype not in (torch.float32, torch.float64):
        sides = tensor[:, 2:] - tensor[:, :2]
        return torch.cat([tensor[:, :2], sides], dim=1).double().numpy()
    corners = tensor.numpy()
    boxes = np.empty(corners.shape)
    boxes[:, :2] = corners[:, :2]
    boxes[:, 2:] = corners[:, 2:] - corners[:, :2]
    return boxes


def predicted_scores(instances: Any) -> np.ndarray:
    """(N,) in the model's own precision; bfloat16, which NumPy lacks, as float32.

    Args:
        instances: with ``scores``.
    """
    scores = instances.scores.detach().cpu()
    return (scores.float() if scores.dtype == torch.bfloat16 else scores).numpy()


def predicted_masks(instances: Any, size: tuple[int, int]) -> RunLengthMasks | None:
    """The masks as run lengths; None where the model gives none.

    Args:
        instances: with ``pred_masks``: (N, H, W) bool or uint8, RunLengthMasks or COCO RLE dicts.
        size: height and width of the image.

    Raises:
        EvaluationError: masks of another size.
    """
    masks = _sized_masks(instances, size)
    if masks is None or isinstance(masks, RunLengthMasks):
        return masks
    return RunLengthMasks.from_bitmasks(masks)


def predicted_bitmasks(instances: Any, size: tuple[int, int]) -> np.ndarray:
    """The masks as (N, H, W) bool or uint8, non-zero inside; arguments and errors as above.

    Raises:
        EvaluationError: detections without masks as well.
    """
    masks = _sized_masks(instances, size)
    if masks is None:
        if len(instances):
            raise EvaluationError("the detections have no pred_masks.")
        return np.zeros((0, *size), np.uint8)
    return masks.to_bitmasks() if isinstance(masks, RunLengthMasks) else masks.numpy()


def _sized_masks(instances: Any, size: tuple[int, int]) -> torch.Tensor | RunLengthMasks | None:
    if not instances.has("pred_masks"):
        return None
    masks = instances.pred_masks
    if isinstance(masks, torch.Tensor):
        masks = masks.cpu()
        masks = masks if masks.dtype in (torch.bool, torch.uint8) else masks != 0
        found = tuple(masks.shape[1:])
    else:
        if not isinstance(masks, RunLengthMasks):
            masks = RunLengthMasks.from_coco(masks, *size)
        found = masks.size
    if found != size:
        raise EvaluationError(
            f"masks are {'x'.join(map(str, found))}, the image is {size[0]}x{size[1]} "
            f"(height x width); predict at the size of the original image."
        )
    return masks


def coco_records(
    image_id: Any,
    boxes: np.ndarray,
    scores: np.ndarray,
    category_ids: Sequence[int],
    masks: RunLengthMasks | None,
) -> Iterator[dict[str, Any]]:
    """COCO's result records of one image.

    Args:
        image_id: the dataset's id of the image.
        boxes: (N, 4) x, y, width, height.
        scores: (N,).
        category_ids: N ids of the dataset.
        masks: N masks, or None for boxes alone.
    """
    rles = masks.to_coco() if masks is not None else None
    for i, (box, score, category) in enumerate(zip(boxes, scores, category_ids, strict=True)):
        record = {
            "image_id": image_id,
            "category_id": category,
            "bbox": box.tolist(),
            "score": float(score),
        }
        if rles is not None:
            record["segmentation"] = rles[i]
        yield record
