"""Pictures of what explanations list: the part of an image around it, with what is wrong marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..data import Dataset
from .errors import FOUND, INVENTED
from .samples import picture_of

_WIDTH = 240  # pixels of a picture
_QUALITY = 84  # of JPEG


def draw_explanations(
    content: Mapping[str, Any], dataset: Dataset, folder: Path, task: str, image_format: str
) -> None:
    """Draw the entries of ``label_errors``; each gets ``picture``, a file below its JSON's folder.

    Args:
        content: of ``<task>_explanations.json``, which is changed.
        dataset: with the images.
        folder: for the pictures; those of the task are replaced.
        task: begins the pictures' names.
        image_format: ``INPUT.FORMAT`` of the run.
    """
    for old in folder.glob(f"{task}_*.jpg"):
        old.unlink()
    records = {str(record["file_name"]): record for record in _records(dataset)}
    for list_name in ("label_errors",):
        for number, entry in enumerate(content.get(list_name, ())):
            image = picture_of(records[entry["file_name"]], image_format)
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{task}_{list_name}_{number:03}.jpg"
            path.write_bytes(_jpeg(_boxes(image, entry)))
            entry["picture"] = f"{folder.name}/{path.name}"


def _records(dataset: Dataset) -> Sequence[Mapping[str, Any]]:
    return dataset.records or dataset.instance_records


def _boxes(image: np.ndarray, entry: Mapping[str, Any]) -> np.ndarray:
    """The predicted box in blue and the annotated one in green."""
    boxes = [(entry["box"], INVENTED)]
    if "annotated_box" in entry:
        boxes.append((entry["annotated_box"], FOUND))
    picture, (left, top), scale = _part(image, [box for box, _ in boxes])
    for box, color in boxes:
        x0, y0, x1, y1 = _corners(box)
        start = round((x0 - left) * scale), round((y0 - top) * scale)
        end = round((x1 - left) * scale) - 1, round((y1 - top) * scale) - 1
        cv2.rectangle(picture, start, end, color, 2)
    return picture


def _part(
    image: np.ndarray, boxes: Sequence[Sequence[float]]
) -> tuple[np.ndarray, tuple[int, int], float]:
    """The part around boxes with as much again around them, its corner, and its scale."""
    corners = np.array([_corners(box) for box in boxes])
    low, high = corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)
    size = np.array(image.shape[1::-1])
    side = min(2 * max(*(high - low), 16), max(size))  # a square, so that all are as wide
    centre = (low + high) / 2
    start = np.clip(np.floor(centre - side / 2), 0, np.maximum(size - side, 0)).astype(int)
    end = np.minimum(np.ceil(start + side), size).astype(int)
    part = image[start[1] : end[1], start[0] : end[0]]
    scale = _WIDTH / max(part.shape[1], 1)
    height = max(1, round(part.shape[0] * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    resized = cv2.resize(np.ascontiguousarray(part), (_WIDTH, height), interpolation=method)
    return resized, (int(start[0]), int(start[1])), scale


def _corners(box: Sequence[float]) -> tuple[float, float, float, float]:
    x, y, width, height = box
    return x, y, x + width, y + height


def _jpeg(picture: np.ndarray) -> bytes:
    quality = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    return cv2.imencode(".jpg", picture[:, :, ::-1], quality)[1].tobytes()
