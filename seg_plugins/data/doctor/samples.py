"""Checks of single samples."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...io.images import read_image, stored_rotated
from ...io.label_encoding import LabelEncoding, UnlistedError
from ...io.panoptic import read_segment_ids
from ...io.raster_windows import window_gaps
from ...io.window_names import file_of, split_name
from ..augmentations import class_counts
from ..errors import DatasetError
from ..image_mapper import not_finite, size_problem
from ..record_form import flaw_of
from .annotations import check_annotations
from .findings import SampleFindings

__all__ = ["SampleFindings", "check_sample"]


def check_sample(
    record: dict[str, Any], classes: int, things: int, ignore_label: int
) -> SampleFindings:
    """Check one dataset dict and the files it names.

    Args:
        record: Detectron2's format.
        classes: number of semantic classes; 0 without a semantic label.
        things: number of instance classes; 0 without instances.
        ignore_label: id of pixels without a class.

    Returns:
        The findings; nothing in the files raises an error.
    """
    findings = SampleFindings()
    flaw = flaw_of(record)
    if flaw:
        findings.add("record", flaw)
        return findings
    size = _check_image(record, findings)
    if size is None:
        return findings
    if "sem_seg_file_name" in record and classes:
        _check_label(record, size, classes, ignore_label, findings)
    if "pan_seg_file_name" in record:
        _check_segments(record, size, classes, findings)
    if "annotations" in record:
        check_annotations(record, size, things, findings)
    return findings


def _check_image(record: dict[str, Any], findings: SampleFindings) -> tuple[int, int] | None:
    name = record["file_name"]
    if not os.path.isfile(file_of(name)):
        findings.add("missing", f"{name}: no such image")
        return None
    try:
        image = read_image(name, "raw")
    except DatasetError as error:
        findings.add("unreadable", str(error))
        return None
    raster, area = split_name(name)
    if area is None:
        findings.digest = hashlib.blake2b(Path(name).read_bytes(), digest_size=16).hexdigest()
    else:  # whose areas are compared, see windows.py
        findings.is_window = True
        findings.gaps = int(window_gaps(raster, area).sum())
    unknown = not_finite(image)
    if unknown:
        findings.add("not finite", f"{name}: {unknown}")
    height, width = image.shape[:2]
    expected = record.get("height", height), record.get("width", width)
    if (height, width) != expected:
        findings.add("size", size_problem(name, (height, width), expected))
    return height, width


def _check_label(
    record: dict[str, Any],
    size: tuple[int, int],
    classes: int,
    ignore_label: int,
    findings: SampleFindings,
) -> None:
    name = record["sem_seg_file_name"]
    if not os.path.isfile(file_of(name)):
        findings.add("missing", f"{name}: no such label")
        return
    encoding = record.get("sem_seg_encoding") or LabelEncoding(
        classes=classes, ignore_label=ignore_label
    )
    try:
        try:
            label = encoding(name)
        except UnlistedError as error:
            findings.add("label value", str(error))
            label = replace(encoding, ignore_unlisted=True)(name)
    except DatasetError as error:
        kind = "colour picture" if "picture where a label" in str(error) else "unreadable"
        findings.add(kind, str(error))
        return
    if stored_rotated(record["file_name"]) != stored_rotated(name):
        findings.add(
            "rotated",
            f"{record['file_name']}: an EXIF tag rotates one of image and label {name} alone; it "
            "is applied, so check that they agree, or store both upright",
            is_error=False,
        )
    if label.shape != size:
        findings.add(
            "size",
            f"{name}: the label is {label.shape[0]}x{label.shape[1]} (height x width), its image "
            f"{size[0]}x{size[1]}",
        )
    counts = class_counts(label)
    found = set(np.flatnonzero(counts).tolist())
    ids = not encoding.values and not encoding.colors
    if ids and classes == 2 and found == {0, 255} and ignore_label == 255:
        findings.add(
            "label value",
            f"{name}: holds 0 and 255 only, and 255 is ignored: if it is a 0/255 mask, give the "
            "classes 'value: 0' and 'value: 255', and ignore_label 254, in a description "
            "(DATASETS.CUSTOM)",
        )
    pixels = np.zeros(classes + 1, np.int64)
    known = min(classes, len(counts))
    pixels[:known] = counts[:known]
    pixels[classes] = counts.sum() - pixels.sum()
    if pixels[:classes].sum() == 0:
        findings.add("empty", f"{name}: no pixel has a class", is_error=False)
    findings.pixels = pixels


def _check_segments(
    record: dict[str, Any], size: tuple[int, int], classes: int, findings: SampleFindings
) -> None:
    name = record["pan_seg_file_name"]
    if not os.path.isfile(name):
        findings.add("missing", f"{name}: no such segments")
        return
    try:
        ids = read_segment_ids(name)
    except DatasetError as error:
        findings.add("unreadable", str(error))
        return
    if ids.shape != size:
        findings.add(
            "size",
            f"{name}: the segments are {ids.shape[0]}x{ids.shape[1]} (height x width), the image "
            f"{size[0]}x{size[1]}",
        )
    values, counts = np.unique(ids, return_counts=True)
    areas = dict(zip(values.tolist(), counts.tolist(), strict=True))
    pixels = np.zeros(classes + 1, np.int64)
    pixels[classes] = areas.pop(0, 0)
    for segment in record["segments_info"]:
        segment_id, class_id = segment["id"], segment["category_id"]
        if not 0 <= class_id < classes:
            findings.add(
                "category",
                f"{name}: segment {segment_id}: category {class_id} is none of the {classes} "
                "classes",
            )
            areas.pop(segment_id, 0)
            continue
        area = areas.pop(segment_id, 0)
        if not area:
            findings.add("segments", f"{name}: segment {segment_id} has no pixels in the PNG")
            continue
        if segment.get("area", area) != area:
            findings.add(
                "segments",
                f"{name}: segment {segment_id} has {area} pixels, its area says {segment['area']}",
            )
        pixels[class_id] += area
        if segment.get("isthing") and not segment.get("iscrowd"):
            findings.add_instance(class_id, area)
    if areas:
        findings.add("segments", f"{name}: segments {sorted(areas)[:5]} are not in segments_info")
    if findings.pixels is None:
        findings.pixels = pixels
