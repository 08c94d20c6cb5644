"""Checks of annotations: of each one, and of what many of them say together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from detectron2.structures import BoxMode

from ...io.masks import mask_box, to_run_lengths
from ..datasets.coco_instances import annotation_area
from .findings import BoxFinding, SampleFindings
from .report import Problem

__all__ = ["check_annotations", "judge_annotations"]

_BOX_TOLERANCE = 1.0
# A box and the bounds of its mask may differ by so many pixels, or by this share of the side.
_MASK_TOLERANCE, _MASK_SHARE = 2.0, 0.1
# An area may differ from the mask's by this share, or by the box's half perimeter: polygons and
# pixels count edges differently.
_AREA_SHARE = 0.25
# Crowds are worth a word from this share of all annotations; COCO has 1 %.
_MANY_CROWDS = 0.1


def check_annotations(
    record: dict[str, Any], size: tuple[int, int], things: int, findings: SampleFindings
) -> None:
    """Check the annotations of one sample.

    Args:
        record: well-formed, see `flaw_of`.
        size: (height, width) of the image.
        things: number of instance classes.
        findings: get what is found.
    """
    for number, annotation in enumerate(record["annotations"]):
        where = f"{record['file_name']}: annotation {annotation.get('id', number)}"
        if not 0 <= annotation["category_id"] < things:
            findings.add("category", f"{where}: category {annotation['category_id']} is unknown")
            continue
        is_crowd = bool(annotation.get("iscrowd", 0))
        findings.crowds += is_crowd
        bounds = None
        area = annotation_area(annotation, *size)
        if annotation.get("segmentation"):
            bounds = _mask_bounds(annotation, *size)
            if area == 0:
                findings.add("mask", f"{where}: the mask covers no pixel", is_error=False)
            findings.with_mask += not is_crowd
        elif not is_crowd:
            findings.no_mask.append(where)
        findings.boxes.append(_check_box(annotation, where, size, bounds))
        if not is_crowd:
            findings.add_instance(annotation["category_id"], area)
            _check_area(annotation, where, area, findings)


def _mask_bounds(annotation: dict[str, Any], height: int, width: int) -> np.ndarray | None:
    """x0, y0, x1, y1 of the mask inside the image; None where it covers nothing."""
    segmentation = annotation["segmentation"]
    if isinstance(segmentation, list):
        points = np.concatenate([np.asarray(p, np.float64) for p in segmentation]).reshape(-1, 2)
        corners = np.concatenate([points.min(axis=0), points.max(axis=0)])
        corners = np.clip(corners, 0, [width, height, width, height])
    else:
        x, y, w, h = mask_box(to_run_lengths(segmentation, height, width))
        corners = np.array([x, y, x + w, y + h])
    return corners if (corners[2:] > corners[:2]).all() else None


def _check_box(
    annotation: dict[str, Any], where: str, size: tuple[int, int], bounds: np.ndarray | None
) -> BoxFinding:
    box, mode = annotation["bbox"], annotation["bbox_mode"]
    corners = np.array(BoxMode.convert(list(box), mode, BoxMode.XYXY_ABS), np.float64)
    problem = _contradiction(corners, size, bounds)
    fits = False
    if mode == BoxMode.XYWH_ABS:
        fits = not _contradiction(np.array(box, np.float64), size, bounds)
    shown = [round(float(side), 2) for side in box]
    return BoxFinding(
        f"{where}: the box {shown} {problem}" if problem else "",
        "mask" not in problem,
        fits,
    )


def _contradiction(corners: np.ndarray, size: tuple[int, int], bounds: np.ndarray | None) -> str:
    """What is wrong with x0, y0, x1, y1; "" if nothing is."""
    height, width = size
    if not np.isfinite(corners).all() or (corners[2:] <= corners[:2]).any():
        return "has no area"
    outside = corners[:2].min() < -_BOX_TOLERANCE
    if outside or (corners[2:] > np.array([width, height]) + _BOX_TOLERANCE).any():
        return f"leaves the {height}x{width} image"
    if bounds is not None:
        tolerance = np.maximum(_MASK_TOLERANCE, _MASK_SHARE * (bounds[2:] - bounds[:2]))
        if (np.abs(corners - bounds) > np.tile(tolerance, 2)).any():
            x0, y0, x1, y1 = (round(float(side), 2) for side in bounds)
            return f"is not that of its mask, {[x0, y0, round(x1 - x0, 2), round(y1 - y0, 2)]}"
    return ""


def _check_area(
    annotation: dict[str, Any], where: str, area: float, findings: SampleFindings
) -> None:
    told = annotation.get("area")
    if told is None:
        return
    width, height = BoxMode.convert(
        list(annotation["bbox"]), annotation["bbox_mode"], BoxMode.XYWH_ABS
    )[2:]
    tolerance = max(_AREA_SHARE * area, width + height)
    has_mask = bool(annotation.get("segmentation"))
    # Without its mask, an object may fill a small part of its box, but not more than the box.
    if told - area > tolerance or (has_mask and area - told > tolerance):
        kind = "mask" if has_mask else "box"
        findings.areas.append(f"{where}: area {told:g}, the {kind} has {area:g} pixels")


def judge_annotations(findings: Sequence[SampleFindings]) -> list[Problem]:
    """What the annotations of all samples say together."""
    problems = _judge_boxes([box for found in findings for box in found.boxes])
    objects = sum(sum(found.sizes) for found in findings)
    areas = [text for found in findings for text in found.areas]
    if areas:
        problems.append(
            Problem(
                "area",
                f"{len(areas)} of {objects} areas contradict their masks, e.g. {areas[0]}; scores "
                "by size (APs, APm, APl) go by the file's areas: leave 'area' out to have the "
                "pixels counted",
                is_error=False,
            )
        )
    crowds, total = sum(found.crowds for found in findings), sum(len(f.boxes) for f in findings)
    if crowds > _MANY_CROWDS * total:
        problems.append(
            Problem(
                "crowds",
                f"{crowds} of {total} annotations are crowds (iscrowd 1), which training leaves "
                "out; give single objects iscrowd 0",
                is_error=False,
            )
        )
    lacking = [where for found in findings for where in found.no_mask]
    if lacking:
        count = len(lacking) + sum(found.with_mask for found in findings)
        problems.append(
            Problem(
                "no mask",
                f"{len(lacking)} of {count} annotations have no mask (segmentation), e.g. "
                f"{'; '.join(lacking[:3])}; boxes alone are trained on with MODEL.MASK_ON False",
                is_error=False,
            )
        )
    return problems


def _judge_boxes(boxes: list[BoxFinding]) -> list[Problem]:
    wrong = [box for box in boxes if box.problem]
    if wrong and all(box.fits_as_corners for box in boxes):
        return [
            Problem(
                "box",
                f"{len(wrong)} of {len(boxes)} boxes fit image and mask as [x0, y0, x1, y1] alone, "
                "where COCO has [x, y, width, height]: write x1 - x0 and y1 - y0 for the last two. "
                f"The first: {wrong[0].problem}",
            )
        ]
    return [Problem("box", box.problem, box.is_error) for box in wrong]
