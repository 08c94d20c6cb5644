"""Reading COCO instances JSON without trusting it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detectron2.structures import BoxMode

from ...io.masks import mask_area, to_run_lengths
from ..errors import DatasetError, Report, raise_error
from .class_table import ClassTable
from .coco_fields import (
    Fields,
    Records,
    as_integer,
    category_map,
    dicts,
    index_images,
    objects,
    table_of_file,
)
from .files import inside, read_json

__all__ = ["annotation_area", "check_segmentation", "instances_of", "read_instances"]

_IDS = 1 << 62


def read_instances(
    path: Path, image_root: Path, table: ClassTable | None, report: Report = raise_error
) -> Records:
    """Read an instances file into Detectron2's dicts, images without annotation included.

    Without the key ``annotations`` in the file, as where the truth of a challenge is not published,
    the dicts have none either. Annotations have ``id`` and ``area`` (square pixels) too, as the
    file says; an area that it does not tell is the mask's, or the box's without one.
    Crowd run lengths stay uncompressed lists where the file has lists: mappers take both.

    Args:
        path: the JSON file.
        image_root: the folder that its file names are relative to.
        table: the things; category ids of the file map to places in it. None takes the file's
            own, in the order of their ids.
        report: called with the error of each image or annotation that is wrong.

    Raises:
        DatasetError: any field that is missing, of the wrong type, or contradicts another;
            the message names file, record and field.
    """
    return instances_of(read_json(path), path, image_root, table, report)


def instances_of(
    content: dict[str, Any],
    path: Path,
    image_root: Path,
    table: ClassTable | None,
    report: Report = raise_error,
) -> Records:
    """The records of a decoded file; see :func:`read_instances`."""
    images = index_images(content, path, report)
    table = table_of_file(content, path) if table is None else table
    categories = category_map(content, table, path)
    records: dict[int, dict[str, Any]] = {}
    for image_id, (name, height, width) in images.items():
        try:
            file_name = str(image_root / inside(name))
        except DatasetError as error:
            report(
                DatasetError(
                    f"{path}: image {image_id}: file_name: {error}; it should be relative to "
                    f"{image_root}"
                )
            )
            continue
        records[image_id] = {
            "file_name": file_name,
            "height": height,
            "width": width,
            "image_id": image_id,
        }
    if "annotations" in content:
        for record in records.values():
            record["annotations"] = []
        _read_annotations(content, path, categories, records, report)
    _check_unit(path, records)
    return Records(records.values(), categories, table)


def _read_annotations(
    content: dict[str, Any],
    path: Path,
    categories: dict[int, int],
    records: dict[int, dict[str, Any]],
    report: Report,
) -> None:
    """Add the file's annotations to the records of their images."""
    listed = {as_integer(image.get("id")) for image in dicts(content["images"])}
    found = list(objects(content, "annotations", path, report))
    numbered = any("id" in fields.record for fields in found)
    seen: set[int] = set()
    for place, fields in enumerate(found):
        try:
            # Ids may be left out, by all annotations: then they count from 1.
            annotation_id = fields.integer("id", -_IDS, _IDS) if numbered else place + 1
            if annotation_id in seen:
                raise fields.fail("id", "stands twice among the annotations")
            seen.add(annotation_id)
            image_id = fields.integer("image_id", -_IDS, _IDS)
            if image_id not in records:
                problem = "an image with an error" if image_id in listed else "none of the images"
                raise fields.fail("image_id", f"{image_id} is {problem} of the file")
            record = records[image_id]
            record["annotations"].append(
                {"id": annotation_id, **_annotation(fields, categories, record)}
            )
        except DatasetError as error:
            report(error)


def _check_unit(path: Path, records: dict[int, dict[str, Any]]) -> None:
    """Raise DatasetError where all boxes are shares of the image's sides, not pixels."""
    boxes = [a["bbox"] for record in records.values() for a in record.get("annotations", ())]
    inside_one = all(min(x, y) >= 0 and x + w <= 1 and y + h <= 1 for x, y, w, h in boxes)
    if inside_one and any(side % 1 for box in boxes for side in box):
        raise DatasetError(
            f"{path}: all {len(boxes)} boxes lie in 0..1, as shares of the image; COCO's are in "
            "pixels: multiply x and width by the image's width, y and height by its height, and "
            "those of the polygons too"
        )


def _annotation(
    fields: Fields, categories: dict[int, int], record: dict[str, Any]
) -> dict[str, Any]:
    category = fields.integer("category_id", -_IDS, _IDS)
    if category not in categories:
        raise fields.fail("category_id", f"{category} is none of the file's categories")
    annotation: dict[str, Any] = {
        "bbox": fields.box(),
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": categories[category],
        "iscrowd": int(fields.flag("iscrowd")),
    }
    segmentation = fields.record.get("segmentation")
    if segmentation not in (None, [], {}):  # exporters of boxes alone write an empty one
        annotation["segmentation"] = check_segmentation(
            fields, segmentation, record["height"], record["width"]
        )
    elif 0 in annotation["bbox"][2:]:
        raise fields.fail("bbox", "has no area, and there is no segmentation: nothing is annotated")
    area = fields.number("area", 0)
    if area is None:
        area = annotation_area(annotation, record["height"], record["width"])
    return {**annotation, "area": area}


def annotation_area(annotation: dict[str, Any], height: int, width: int) -> float:
    """Pixels of an annotation's mask, or the area of its box where it has no mask.

    Args:
        annotation: with a checked ``segmentation``, if any.
        height: of the image, in pixels.
        width: of the image, in pixels.
    """
    if not annotation.get("segmentation"):
        box = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYWH_ABS)
        return float(box[2] * box[3])
    return float(mask_area(to_run_lengths(annotation["segmentation"], height, width)))


def check_segmentation(fields: Fields, segmentation: Any, height: int, width: int) -> Any:
    """Polygons with at least three points each, or run lengths that fill the image.

    Returns:
        The segmentation as it stands.

    Raises:
        DatasetError: anything else.
    """
    if isinstance(segmentation, list):
        if all(type(number) in (int, float) for number in segmentation):
            raise fields.fail(
                "segmentation",
                "is a list of numbers; it should be a list of polygons, with one more pair of "
                "brackets: [[x0, y0, x1, y1, ...]]",
            )
        for polygon in segmentation:
            fields.numbers("segmentation", polygon)
            if len(polygon) < 6 or len(polygon) % 2:
                raise fields.fail(
                    "segmentation", f"has a polygon of {len(polygon)} numbers; three points are 6"
                )
            # The COCO API walks along every edge: a far point would cost gigabytes.
            for values, side in ((polygon[::2], width), (polygon[1::2], height)):
                if min(values) < -side or max(values) > 2 * side:
                    raise fields.fail(
                        "segmentation", f"has a point far outside the {height}x{width} image"
                    )
        return segmentation
    if not isinstance(segmentation, dict):
        raise fields.fail("segmentation", "should be polygons or run lengths")
    if segmentation.get("size") != [height, width]:
        raise fields.fail(
            "segmentation.size",
            f"is {str(segmentation.get('size'))[:60]}, the image has {[height, width]}",
        )
    counts = segmentation.get("counts")
    if isinstance(counts, str):
        counts = _unpack(fields, counts)
    if not isinstance(counts, list) or not all(type(n) is int and n >= 0 for n in counts):
        raise fields.fail("segmentation.counts", "should be run lengths")
    if sum(counts) != height * width:
        raise fields.fail(
            "segmentation.counts", f"fill {sum(counts)} pixels of {height}x{width}={height * width}"
        )
    return segmentation


def _unpack(fields: Fields, packed: str) -> list[int]:
    """Run lengths from COCO's string form: 5 bits per character, later runs as differences.

    The COCO API reads past the end of a damaged string, so it is checked here first.
    """
    counts: list[int] = []
    value, shift = 0, 0
    for character in packed:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 60:
            raise fields.fail("segmentation.counts", f"has the impossible character {character!r}")
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            if code & 16:
                value -= 1 << shift
            counts.append(value + counts[-2] if len(counts) > 2 else value)
            value, shift = 0, 0
    if shift:
        raise fields.fail("segmentation.counts", "ends in the middle of a number")
    return counts
