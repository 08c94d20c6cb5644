"""Reading COCO panoptic JSON without trusting it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detectron2.structures import BoxMode

from ..errors import DatasetError
from .class_table import ClassTable
from .coco_fields import Fields, category_map, index_images, objects
from .files import inside, read_json

__all__ = ["read_panoptic"]

_IDS = 1 << 62
_MAX_SEGMENT_ID = 256**3 - 1


def read_panoptic(
    path: Path, image_root: Path, panoptic_root: Path, table: ClassTable
) -> list[dict[str, Any]]:
    """Read a panoptic file into Detectron2's dicts.

    Args:
        path: the JSON file.
        image_root: the folder of the images.
        panoptic_root: the folder of the PNGs with the segment ids.
        table: all classes; category ids of the file map to places in it.

    Returns:
        One dict per annotation. ``segments_info`` has ``id``, ``category_id`` (contiguous, over
        things and stuff), ``isthing``, ``iscrowd``, and ``bbox``, ``bbox_mode``, ``area`` where
        the file has them.

    Raises:
        DatasetError: any field that is missing, of the wrong type, or contradicts another.
    """
    content = read_json(path)
    images = index_images(content, path)
    categories = category_map(content, table, path)
    records, seen = [], set()
    for fields in objects(content, "annotations", path):
        image_id = fields.integer("image_id", -_IDS, _IDS)
        if image_id not in images:
            raise fields.fail("image_id", f"{image_id} is none of the file's images")
        if image_id in seen:
            raise fields.fail("image_id", f"{image_id} is annotated twice")
        seen.add(image_id)
        name, height, width = images[image_id]
        try:
            image = image_root / inside(name)
            segments = panoptic_root / inside(fields.text("file_name"))
        except DatasetError as error:
            raise fields.fail("file_name", str(error)) from None
        records.append(
            {
                "file_name": str(image),
                "height": height,
                "width": width,
                "image_id": image_id,
                "pan_seg_file_name": str(segments),
                "segments_info": _segments(fields, categories, table),
            }
        )
    return records


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
            "iscrowd": fields.integer("iscrowd", 0, 1, default=0),
        }
        if "bbox" in fields.record:
            info.update(bbox=fields.box(), bbox_mode=BoxMode.XYWH_ABS)
        if "area" in fields.record:
            info["area"] = fields.integer("area", 0, _IDS)
        infos.append(info)
    return infos
