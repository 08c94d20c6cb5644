"""VGG Image Annotator's JSON: all images of a folder in one file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DatasetError, Report, raise_error
from .class_table import ClassTable
from .files import inside, read_json
from .layouts import Record
from .tool_shapes import ellipse, image_size, number_of, outline, polygon_annotation, rectangle

__all__ = ["Via"]


@dataclass(frozen=True)
class Via:
    """Polygons, rectangles, circles and ellipses of VIA 1 and 2, each an object.

    With one class every region is of it. With several, one of a region's attributes has the name
    of a class.

    Attributes:
        images: the folder.
        json: the exported annotations, or a saved project.
    """

    images: str
    json: str

    def records(
        self, folder: Path, table: ClassTable, report: Report = raise_error
    ) -> list[Record]:
        """One dict per image of the file, with its objects.

        Raises:
            DatasetError: a missing image or field, a region without class or area.
        """
        path = folder / self.json
        content = read_json(path)
        items = content.get("_via_img_metadata", content)
        categories = {name: place for place, name in enumerate(table.names)}
        records: list[Record] = []
        for key, item in items.items() if isinstance(items, dict) else ():
            try:
                if not isinstance(item, dict) or not isinstance(item.get("filename"), str):
                    raise DatasetError("filename is missing")
                image = folder / self.images / inside(item["filename"])
                height, width = image_size(image)
                records.append(
                    {
                        "file_name": str(image),
                        "image_id": len(records) + 1,
                        "height": height,
                        "width": width,
                        "annotations": list(
                            _objects(path, key, item, categories, height, width, report)
                        ),
                    }
                )
            except DatasetError as error:
                report(DatasetError(f"{path}: {key}: {error}"))
        if not records:
            raise DatasetError(f"{path}: no images as VGG Image Annotator writes them")
        return records

    def paths(self, folder: Path) -> dict[str, str]:
        """Detectron2's evaluator writes an annotation file of its own."""
        return {}


def _objects(
    path: Path,
    key: str,
    item: dict[str, Any],
    categories: dict[str, int],
    height: int,
    width: int,
    report: Report,
) -> Iterator[dict[str, Any]]:
    regions = item.get("regions", [])
    if not isinstance(regions, list | dict):
        raise DatasetError("regions should be a list or an object")
    numbered = regions.items() if isinstance(regions, dict) else enumerate(regions)
    for place, region in numbered:
        try:
            if not isinstance(region, dict):
                raise DatasetError("it is no region")
            drawn, told = (region.get(k) for k in ("shape_attributes", "region_attributes"))
            category = _category(told if isinstance(told, dict) else {}, categories)
            corners = _outline(drawn if isinstance(drawn, dict) else {})
            yield polygon_annotation([corners], category, height, width)
        except DatasetError as error:
            report(DatasetError(f"{path}: {key}: regions[{place}]: {error}"))


def _category(attributes: dict[str, Any], categories: dict[str, int]) -> int:
    if len(categories) == 1:
        return 0
    # A checkbox is an object: the names of what is ticked.
    told = [
        name
        for value in attributes.values()
        for name in ([k for k, on in value.items() if on] if isinstance(value, dict) else [value])
    ]
    found = {name for name in told if isinstance(name, str) and name in categories}
    if len(found) != 1:
        raise DatasetError(
            f"its attributes {str(attributes)[:200]} should name one of the classes "
            f"{', '.join(categories)}"
        )
    return categories[found.pop()]


def _outline(shape: dict[str, Any]) -> list[float]:
    kind = shape.get("name")
    if kind in ("polygon", "polyline"):
        return outline(shape.get("all_points_x", []), shape.get("all_points_y", []))
    if kind == "rect":
        x, y, w, h = (number_of(shape.get(key)) for key in ("x", "y", "width", "height"))
        return rectangle(x, y, x + w, y + h)
    if kind == "circle":
        x, y, radius = (number_of(shape.get(key)) for key in ("cx", "cy", "r"))
        return ellipse(x, y, radius, radius)
    if kind == "ellipse":
        x, y, across, down = (number_of(shape.get(key)) for key in ("cx", "cy", "rx", "ry"))
        return ellipse(x, y, across, down, number_of(shape.get("theta", 0.0)))
    raise DatasetError(f"a {kind!r} is no area; draw a polygon, rect, circle or ellipse")
