"""labelme's JSON: a file for each image, with the shapes drawn on it."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...io.masks import to_bitmask
from ..errors import DatasetError, Report, raise_error
from .class_table import ClassTable
from .coco_fields import dicts
from .files import missing, read_json
from .layouts import Record
from .mask_folders import mask_annotation
from .tool_shapes import ellipse, number_of, outline, polygon_annotation, rectangle

__all__ = ["Labelme", "labels_of"]

Shape = dict[str, Any]


@dataclass(frozen=True)
class Labelme:
    """Polygons, rectangles, circles and masks; those of one label and ``group_id`` are one object.

    Attributes:
        labels: folder of the JSON files; subfolders are searched, too.
        images: folder of the images; "" where they lie beside the JSON files.
    """

    labels: str
    images: str = ""

    def records(
        self, folder: Path, table: ClassTable, report: Report = raise_error
    ) -> list[Record]:
        """One dict per JSON file, with its objects.

        Raises:
            DatasetError: a missing image or field, a label that is no class, or a shape without
                area (line, point).
        """
        categories = {name: place for place, name in enumerate(table.names)}
        records = []
        for number, path in enumerate(_files(folder / self.labels), 1):
            try:
                content = read_json(path)
                height, width = (_side(content, key) for key in ("imageHeight", "imageWidth"))
                records.append(
                    {
                        "file_name": str(self._image(folder, path, content)),
                        "image_id": number,
                        "height": height,
                        "width": width,
                        "annotations": list(
                            _objects(path, content, categories, height, width, report)
                        ),
                    }
                )
            except DatasetError as error:
                text = str(error)
                report(error if text.startswith(str(path)) else DatasetError(f"{path}: {text}"))
        return records

    def _image(self, folder: Path, path: Path, content: dict[str, Any]) -> Path:
        """By the name alone: the path in the file is that of the annotator's disk."""
        named = content.get("imagePath")
        if not isinstance(named, str) or not named:
            raise DatasetError("imagePath is missing")
        name = named.replace("\\", "/").rpartition("/")[2]
        below = path.parent.relative_to(folder / self.labels)
        place = (folder / self.images / below if self.images else path.parent) / name
        if not place.is_file():
            raise DatasetError(f"no image {place}; images should be the folder that holds them")
        return place

    def paths(self, folder: Path) -> dict[str, str]:
        """Detectron2's evaluator writes an annotation file of its own."""
        return {}


def labels_of(folder: Path) -> list[str]:
    """The labels of all files in a folder, sorted: the classes where none are given."""
    found = {
        shape["label"]
        for path in _files(folder)
        for shape in dicts(read_json(path).get("shapes"))
        if isinstance(shape.get("label"), str)
    }
    return sorted(found)


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise missing(folder, "no such folder")
    found = sorted(folder.rglob("*.json"))
    if not found:
        raise missing(folder, "no .json file of labelme")
    return found


def _side(content: dict[str, Any], key: str) -> int:
    value = content.get(key)
    if type(value) is not int or value < 1:
        raise DatasetError(f"{key} is {value!r}; it should be the number of pixels")
    return value


def _objects(
    path: Path,
    content: dict[str, Any],
    categories: dict[str, int],
    height: int,
    width: int,
    report: Report,
) -> Iterator[dict[str, Any]]:
    shapes = content.get("shapes")
    if not isinstance(shapes, list):
        raise DatasetError("shapes is missing")
    groups: dict[tuple[Any, ...], list[tuple[int, Shape]]] = {}
    for place, shape in enumerate(shapes):
        if not isinstance(shape, dict):
            report(DatasetError(f"{path}: shapes[{place}] is no shape"))
            continue
        group = shape.get("group_id")
        # Without a group each is an object of its own.
        key = (str(shape.get("label")), str(group)) if group is not None else (place,)
        groups.setdefault(key, []).append((place, shape))
    for members in groups.values():
        try:
            yield _object(members, categories, height, width)
        except DatasetError as error:
            report(DatasetError(f"{path}: shapes[{members[0][0]}]: {error}"))


def _object(
    members: list[tuple[int, Shape]], categories: dict[str, int], height: int, width: int
) -> dict[str, Any]:
    label = members[0][1].get("label")
    if not isinstance(label, str) or label not in categories:
        raise DatasetError(
            f"label {label!r} is none of the classes {', '.join(categories)}; list it there"
        )
    shapes = [shape for _, shape in members]
    if any(shape.get("shape_type") == "mask" for shape in shapes):
        mask = np.zeros((height, width), bool)
        for shape in shapes:
            mask |= _mask(shape, height, width)
        if not mask.any():
            raise DatasetError("the mask is empty")
        return mask_annotation(mask, categories[label])
    outlines = [_outline(shape) for shape in shapes]
    return polygon_annotation(outlines, categories[label], height, width)


def _outline(shape: Shape) -> list[float]:
    kind = shape.get("shape_type", "polygon")
    xs, ys = _points(shape)
    if kind == "rectangle" and len(xs) in (2, 4):
        return rectangle(min(xs), min(ys), max(xs), max(ys))
    if kind == "circle" and len(xs) == 2:
        radius = float(np.hypot(xs[1] - xs[0], ys[1] - ys[0]))
        return ellipse(xs[0], ys[0], radius, radius)
    if kind == "polygon":
        return outline(xs, ys)
    raise DatasetError(
        f"a {kind} of {len(xs)} points is no area; draw a polygon, rectangle, circle or mask"
    )


def _points(shape: Shape) -> tuple[list[float], list[float]]:
    points = shape.get("points")
    if not isinstance(points, list) or not all(
        isinstance(point, list) and len(point) == 2 for point in points
    ):
        raise DatasetError("points should be a list of x and y")
    xs, ys = ([number_of(point[i]) for point in points] for i in (0, 1))
    return xs, ys


def _mask(shape: Shape, height: int, width: int) -> np.ndarray:
    """The pixels of a shape, (height, width) bool."""
    if shape.get("shape_type") != "mask":
        return to_bitmask([_outline(shape)], height, width)
    xs, ys = _points(shape)
    if len(xs) != 2:
        raise DatasetError(f"a mask has two points, its corners, this has {len(xs)}")
    left, top = round(xs[0]), round(ys[0])
    try:
        with Image.open(io.BytesIO(base64.b64decode(str(shape.get("mask", ""))))) as image:
            right, bottom = left + image.size[0], top + image.size[1]
            if left < 0 or top < 0 or right > width or bottom > height:
                raise DatasetError("its mask reaches over the border of the image")
            part = np.asarray(image.convert("L")) > 0
    except DatasetError:
        raise
    except (
        binascii.Error, OSError, ValueError, SyntaxError, Image.DecompressionBombError,
    ) as error:  # fmt: skip
        raise DatasetError(f"its mask is no image ({error})") from None
    whole = np.zeros((height, width), bool)
    whole[top:bottom, left:right] = part
    return whole
