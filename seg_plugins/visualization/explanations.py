"""Pictures of what explanations list: the part of an image around it, with what is wrong marked."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..io.masks import to_bitmask
from ..io.window_names import file_of
from .errors import FOUND, INVENTED, WRONG, painted
from .samples import picture_of

logger = logging.getLogger(__name__)

_WIDTH = 240  # pixels of a picture
_QUALITY = 84  # of JPEG


def draw_explanations(
    content: Mapping[str, Any], folder: Path, task: str, image_format: str
) -> None:
    """Draw the entries of the lists; each gets ``picture``, a file below its JSON's folder.

    Args:
        content: of ``<task>_explanations.json``, which is changed.
        folder: for the pictures; those of the task are replaced.
        task: begins the pictures' names.
        image_format: ``INPUT.FORMAT`` of the run.
    """
    for old in folder.glob(f"{task}_*.jpg"):
        old.unlink()
    for name, draw in _DRAWN.items():
        for number, entry in enumerate(content.get(name, ())):
            if not Path(file_of(entry["file_name"])).is_file():  # only their predictions are here
                logger.warning("no picture of %s: there is no such file", entry["file_name"])
                continue
            image = picture_of(entry, image_format)
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{task}_{name}_{number:03}.jpg"
            path.write_bytes(_jpeg(draw(image, entry)))
            entry["picture"] = f"{folder.name}/{path.name}"


def _boxes(image: np.ndarray, entry: Mapping[str, Any]) -> np.ndarray:
    """The predicted box in blue and the annotated one in green."""
    boxes = [(entry["box"], INVENTED)]
    if "annotated_box" in entry:
        boxes.append((entry["annotated_box"], FOUND))
    picture, place = _part(image, [box for box, _ in boxes])
    corner = np.array([place.columns.start, place.rows.start] * 2)
    for box, color in boxes:
        x0, y0, x1, y1 = ((_corners(box) - corner) * place.scale).round().astype(int).tolist()
        cv2.rectangle(picture, (x0, y0), (x1 - 1, y1 - 1), color, 2)
    return picture


def _confused(image: np.ndarray, entry: Mapping[str, Any]) -> np.ndarray:
    """The confused pixels in red over a greyed image."""
    picture, place = _part(image, [entry["box"]])
    mask = place.of(to_bitmask(entry["mask"], *entry["mask"]["size"]))
    return painted(picture, {WRONG: mask})


def _segments(image: np.ndarray, entry: Mapping[str, Any]) -> np.ndarray:
    """The true segment outlined in green, the predicted ones in blue."""
    picture, place = _part(image, [entry["box"]])
    masks = [(rle, INVENTED) for rle in entry["predicted_masks"]] + [(entry["mask"], FOUND)]
    for rle, color in masks:
        mask = place.of(to_bitmask(rle, *rle["size"])).astype(np.uint8)
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, contours, -1, color, 2)
    return picture


@dataclass(frozen=True)
class _Place:
    """A part of an image, scaled to a picture's width."""

    rows: slice
    columns: slice
    size: tuple[int, int]  # width and height of the picture

    @property
    def scale(self) -> float:
        return self.size[0] / (self.columns.stop - self.columns.start)

    def of(self, pixels: np.ndarray) -> np.ndarray:
        """That part of an image, or of an (H, W) bool mask."""
        part = np.ascontiguousarray(pixels[self.rows, self.columns])
        if part.dtype == bool:
            return cv2.resize(part.view(np.uint8), self.size, interpolation=cv2.INTER_NEAREST) > 0
        method = cv2.INTER_AREA if self.scale < 1 else cv2.INTER_NEAREST
        return cv2.resize(part, self.size, interpolation=method)


def _part(image: np.ndarray, boxes: Sequence[Sequence[float]]) -> tuple[np.ndarray, _Place]:
    """The square around boxes, twice as large as they are, and its place."""
    corners = np.array([_corners(box) for box in boxes])
    low, high = corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)
    size = np.array(image.shape[1::-1])
    side = min(2 * max(*(high - low), 16), max(size))
    start = np.floor((low + high - side) / 2)
    start = np.clip(start, 0, np.maximum(size - side, 0)).astype(int)
    end = np.minimum(np.ceil(start + side), size).astype(int)
    width, height = (end - start).tolist()
    shown = _WIDTH, max(1, round(height * _WIDTH / width))
    place = _Place(slice(start[1], end[1]), slice(start[0], end[0]), shown)
    return place.of(image), place


def _corners(box: Sequence[float]) -> tuple[float, float, float, float]:
    x, y, width, height = box
    return x, y, x + width, y + height


_DRAWN: dict[str, Callable[[np.ndarray, Mapping[str, Any]], np.ndarray]] = {
    "label_errors": _boxes,
    "confusion_pairs": _confused,
    "merged_or_split": _segments,
}


def _jpeg(picture: np.ndarray) -> bytes:
    quality = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    return cv2.imencode(".jpg", picture[:, :, ::-1], quality)[1].tobytes()
