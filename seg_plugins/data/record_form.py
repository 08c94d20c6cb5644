"""The form of dataset dicts that other people's loaders give."""

from __future__ import annotations

import os
from numbers import Integral, Real
from typing import Any

import numpy as np
from detectron2.structures import BoxMode

__all__ = ["flaw_of"]

_BOX_MODES = (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)


def flaw_of(record: Any) -> str:
    """What keeps a dataset dict from being checked and trained on; "" if nothing does."""
    name = record.get("file_name") if isinstance(record, dict) else None
    if isinstance(name, os.PathLike):
        return f"{name}: 'file_name' should be text, str(path), not a {type(name).__name__}"
    if not isinstance(name, str):
        return f"a dict without 'file_name' where a sample is expected: {repr(record)[:80]}"
    for key in ("sem_seg_file_name", "pan_seg_file_name"):
        if not isinstance(record.get(key, ""), str):
            return f"{name}: '{key}' should be a path, not {record[key]!r}"
    if "pan_seg_file_name" in record and "segments_info" not in record:
        return f"{name}: 'segments_info' is missing beside 'pan_seg_file_name'"
    for key, flaw in (("annotations", _annotation_flaw), ("segments_info", _segment_flaw)):
        entries = record.get(key, [])
        if not isinstance(entries, (list, tuple)):
            return f"{name}: '{key}' should be a list"
        for place, entry in enumerate(entries):
            found = flaw(entry) if isinstance(entry, dict) else "should be a dict"
            if found:
                shown = entry.get("id", place) if isinstance(entry, dict) else place
                return f"{name}: {key.removesuffix('s').removesuffix('s_info')} {shown}: {found}"
    return ""


def _annotation_flaw(annotation: dict[str, Any]) -> str:
    if not isinstance(annotation.get("category_id"), Integral):
        return "'category_id' should be an integer"
    box = annotation.get("bbox")
    try:
        numbers = [] if box is None else [isinstance(side, Real) for side in box]
    except TypeError:
        numbers = []
    if len(numbers) != 4 or not all(numbers):
        return "'bbox' should be four numbers"
    if annotation.get("bbox_mode") not in _BOX_MODES:
        return "'bbox_mode' should be BoxMode.XYXY_ABS or BoxMode.XYWH_ABS"
    segmentation = annotation.get("segmentation")
    if segmentation is None:
        return ""
    if isinstance(segmentation, dict):
        known = not segmentation or {"counts", "size"} <= set(segmentation)
    else:
        known = isinstance(segmentation, list) and all(map(_is_polygon, segmentation))
    if known:
        return ""
    return (
        "'segmentation' should be polygons of 3 points or more, or run lengths, of a mask "
        "pycocotools.mask.encode(numpy.asfortranarray(mask))"
    )


def _is_polygon(numbers: Any) -> bool:
    try:
        points = np.asarray(numbers, np.float64)
    except (TypeError, ValueError):
        return False
    return bool(
        points.ndim == 1 and len(points) >= 6 and len(points) % 2 == 0 and np.isfinite(points).all()
    )


def _segment_flaw(segment: dict[str, Any]) -> str:
    wrong = [k for k in ("id", "category_id") if not isinstance(segment.get(k), Integral)]
    return f"'{wrong[0]}' should be an integer" if wrong else ""
