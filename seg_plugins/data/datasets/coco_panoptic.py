"""Reading COCO panoptic JSON without trusting it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from detectron2.structures import BoxMode
from detectron2.utils.logger import log_first_n

from ..errors import DatasetError, Report, raise_error
from .class_table import ClassTable
from .coco_fields import Fields, Records, category_map, index_images, objects, table_of_file
from .files import inside, read_json

__all__ = ["read_panoptic"]

_IDS = 1 << 62
_MAX_SEGMENT_ID = 256**3 - 1


def read_panoptic(
    path: Path,
    image_root: Path,
    panoptic_root: Path,
    table: ClassTable | None,
    report: Report = raise_error,
) -> Records:
    """Read a panoptic file into Detectron2's dicts.

    Args:
        path: the JSON file.
        image_root: the folder of the images.
        panoptic_root: the folder of the PNGs with the segment ids.
        table: all classes; category ids of the file map to places in it. None takes the file's
            own, in the order of their ids.
        report: called with the error of each image or annotation that is wrong.

    Returns:
        One dict per annotation. ``segments_info`` has ``id``, ``category_id`` (contiguous, over
        things and stuff), ``isthing``, ``iscrowd``, and ``bbox``, ``bbox_mode``, ``area`` where
        the file has them. A file that lists no image at all, which is enough for scores, gives
        records without ``file_name``, ``height`` and ``width``.

    Raises:
        DatasetError: any field that is missing, of the wrong type, or contradicts another.
    """
    content = read_json(path)
    images = index_images(content, path, report) if "images" in content else {}
    table = table_of_file(content, path) if table is None else table
    categories = category_map(content, table, path)
    records: list[dict[str, Any]] = []
    seen: set[int] = set()
    for fields in objects(content, "annotations", path, report):
        try:
            image_id = fields.integer("image_id", -_IDS, _IDS)
            if images and image_id not in images:
                raise fields.fail("image_id", f"{image_id} is none of the file's images")
            if image_id in seen:
                raise fields.fail("image_id", f"{image_id} is annotated twice")
            seen.add(image_id)
            image: dict[str, Any] = {}
            if images:
                name, height, width = images[image_id]
                file_name = str(image_root / _path(fields, name))
                image = {"file_name": file_name, "height": height, "width": width}
            records.append(
                {
                    **image,
                    "image_id": image_id,
                    "pan_seg_file_name": str(
                        panoptic_root / _path(fields, fields.text("file_name"))
                    ),
                    "segments_info": _segments(fields, categories, table),
                }
            )
        except DatasetError as error:
            report(error)
    without = len(images.keys() - seen)
    if without:
        log_first_n(
            logging.WARNING,
            f"{path}: {without} of {len(images)} images have no annotation and are left out",
            key="message",
        )
    return Records(records, categories, table)


def _path(fields: Fields, name: str) -> str:
    try:
        return inside(name)
    except DatasetError as error:
        raise fields.fail("file_name", str(error)) from None


def _segments(
    annotation: Fields, categories: dict[int, int], table: ClassTable
) -> list[dict[str, Any]]:
    infos, seen = [], set()
    for fields in objects(annotation.record, "segments_info", annotation.where):
        segment_id = fields.integer("id", 1, _MAX_SEGMENT_ID)
        if segment_id in seen:
            raise fields.fail("id", "stands twice among the image's segments")
        seen.add(segment_id)
        category = fields.integer("category_id", -_IDS, _IDS)
        if category not in categories:
            raise fields.fail("category_id", f"{category} is none of the file's categories")
        class_id = categories[category]
        info: dict[str, Any] = {
            "id": segment_id,
            "category_id": class_id,
            "isthing": table.classes[class_id].is_thing,
            "iscrowd": int(fields.flag("iscrowd")),
        }
        if fields.record.get("bbox") is not None:
            info.update(bbox=fields.box(), bbox_mode=BoxMode.XYWH_ABS)
        if fields.record.get("area") is not None:
            info["area"] = fields.integer("area", 0, _IDS)
        infos.append(info)
    return infos
