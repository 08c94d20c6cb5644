"""Labels drawn over images. All pictures are (H, W, 3) uint8 arrays in RGB."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from detectron2.structures import BoxMode

from ..io.masks import to_bitmask
from .legend import write_names

OPACITY = 0.55
GAP = 4  # white pixels between the pictures of a grid


def displayable(pixels: np.ndarray) -> np.ndarray:
    """A picture of any image.

    Args:
        pixels: (H, W, C) of any type. The first three channels are shown, or else the first one
            in grey; other types than uint8 are stretched from their least to their greatest value.

    Returns:
        (H, W, 3) uint8.
    """
    shown = pixels[:, :, :3] if pixels.shape[2] >= 3 else np.repeat(pixels[:, :, :1], 3, axis=2)
    if shown.dtype != np.uint8:
        shown = np.nan_to_num(shown.astype(np.float64))
        low, high = shown.min(), shown.max()
        shown = np.rint((shown - low) * (255 / max(high - low, 1e-12))).astype(np.uint8)
    return np.ascontiguousarray(shown)


def semantic(
    image: np.ndarray,
    labels: np.ndarray,
    colors: np.ndarray,
    ignore_label: int = 255,
    *,
    opacity: float = OPACITY,
) -> np.ndarray:
    """Class colours over an image; ignored pixels keep the bare image.

    Args:
        image: (H, W, 3) uint8.
        labels: (H, W) integer class ids.
        colors: (K, 3) uint8, RGB.
        ignore_label: id that stands for "not labelled".
        opacity: of the colours, 0 to 1.
    """
    valid = (labels != ignore_label) & (labels < len(colors))
    painted = colors[np.where(valid, labels, 0).astype(np.intp)]
    blended = cv2.addWeighted(image, 1 - opacity, painted, opacity, 0)
    return np.where(valid[..., None], blended, image)


def instances(
    image: np.ndarray,
    masks: np.ndarray | None,
    boxes: np.ndarray | None = None,
    names: Sequence[str] = (),
) -> np.ndarray:
    """Instance masks (each in a colour of its own, outlined) and boxes over an image.

    Args:
        image: (H, W, 3) uint8.
        masks: (N, H, W) bool, or None.
        boxes: (N, 4) x0, y0, x1, y1 in pixels, or None.
        names: of each object, with its score, written at its box or mask where it is smaller than
            that; none: nothing is.
    """
    picture = image.copy()
    count = len(masks) if masks is not None else len(boxes) if boxes is not None else 0
    for i in range(count):
        color = instance_color(i)
        if masks is not None:
            mask = masks[i].astype(bool)
            picture[mask] = (picture[mask] * (1 - OPACITY) + OPACITY * np.array(color)).astype("u1")
            outline(picture, mask.astype(np.uint8), color)
        if boxes is not None:
            x0, y0, x1, y1 = (round(float(v)) for v in boxes[i])
            cv2.rectangle(picture, (x0, y0), (x1, y1), color, 1)
    if len(names):  # on top of all of them
        places = boxes if boxes is not None else _boxes(masks)
        write_names(picture, places, names, [instance_color(i) for i in range(count)])
    return picture


def _boxes(masks: np.ndarray | None) -> np.ndarray:
    """(N, 4) x0, y0, x1, y1 around each mask; 0 of an empty one."""
    assert masks is not None  # objects have boxes or masks
    found = [cv2.boundingRect(mask.astype(np.uint8)) for mask in masks]
    return np.array([(x, y, x + w, y + h) for x, y, w, h in found]).reshape(-1, 4)


def outline(picture: np.ndarray, mask: np.ndarray, color: tuple[int, int, int]) -> None:
    """Draw the outer contours of a (H, W) uint8 mask into a picture, one pixel wide."""
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, contours, -1, color, 1)


def instance_color(index: int) -> tuple[int, int, int]:
    """A colour for the index-th instance; neighbours in the sequence differ clearly."""
    hue = int(index * 180 * 0.618034) % 180  # golden ratio: never close to the last ones
    pixel = np.array([[[hue, 200, 255]]], np.uint8)
    red, green, blue = cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0]
    return int(red), int(green), int(blue)


def annotation_masks(record: Mapping[str, Any], shape: tuple[int, int]) -> np.ndarray:
    """(N, H, W) bool masks of a dataset record's annotations, crowds left out.

    An annotation without a mask gives the pixels of its box.
    """
    masks = []
    for annotation in record.get("annotations", ()):
        if annotation.get("iscrowd", 0):
            continue
        code = annotation.get("segmentation")
        masks.append(to_bitmask(code, *shape) if code else _box_mask(annotation, shape))
    return np.stack(masks) if masks else np.zeros((0, *shape), bool)


def _box_mask(annotation: Mapping[str, Any], shape: tuple[int, int]) -> np.ndarray:
    box = BoxMode.convert(list(annotation["bbox"]), annotation["bbox_mode"], BoxMode.XYXY_ABS)
    x0, y0, x1, y1 = (max(round(side), 0) for side in box)
    mask = np.zeros(shape, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def grid(rows: Sequence[Sequence[np.ndarray]], width: int = 320) -> np.ndarray:
    """Rows of pictures on white; each picture is scaled to the same width."""
    lines = []
    for row in rows:
        pictures = [_to_width(picture, width) for picture in row]
        height = max(p.shape[0] for p in pictures)
        cells = [_pad(p, height, width + GAP) for p in pictures]
        lines.append(_pad(np.hstack(cells), height + GAP, len(cells) * (width + GAP)))
    full = max(line.shape[1] for line in lines)
    return np.vstack([_pad(line, line.shape[0], full) for line in lines])


def _to_width(picture: np.ndarray, width: int) -> np.ndarray:
    height = max(1, round(picture.shape[0] * width / picture.shape[1]))
    shrink = width < picture.shape[1]
    method = cv2.INTER_AREA if shrink else cv2.INTER_NEAREST
    return cv2.resize(np.ascontiguousarray(picture), (width, height), interpolation=method)


def _pad(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    white = np.full((height, width, 3), 255, np.uint8)
    white[: picture.shape[0], : picture.shape[1]] = picture
    return white
