"""Checks of windows of rasters: parts that overlap, pixels without data."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...io.grids import corners_of, mapped
from ...io.rasters import open_raster
from ...io.window_names import Area, file_of, split_name
from ..errors import DatasetError
from .findings import SampleFindings
from .report import Problem

__all__ = ["judge_gaps", "judge_overlaps"]


def judge_gaps(
    records: Sequence[dict[str, Any]], findings: Sequence[SampleFindings]
) -> list[Problem]:
    """Say how many pixels of the windows that were checked hold no data."""
    gaps = sum(found.gaps for found in findings)
    if not gaps:
        return []
    total = sum(record["height"] * record["width"] for record in records)
    return [
        Problem(
            "no data",
            f"{gaps} of {total} pixels of {len(records)} windows hold no data (nodata or masked) "
            "and get the ignore label",
            is_error=False,
        )
    ]


def judge_overlaps(
    records: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]], other_name: str
) -> list[Problem]:
    """Find areas of two datasets that share pixels, in one file or in one place on Earth.

    Args:
        records: whose windows may be drawn anywhere in their areas.
        others: those of the other dataset.
        other_name: of it.
    """
    own, foreign = _areas(records), _areas(others)
    if not own or not foreign:
        return []
    try:
        places = {file: _place(file) for file in own.keys() | foreign.keys()}
    except DatasetError:
        return []  # told where the file's windows are checked
    problems = []
    for file, areas in own.items():
        for other, other_areas in foreign.items():
            pixels = 0
            for area in other_areas:
                seen = area if file == other else _in_pixels_of(places, file, other, area)
                pixels += 0 if seen is None else sum(seen.shared(part) for part in areas)
            if pixels:
                where = "" if file == other else f" {other} lies on the same ground:"
                problems.append(
                    Problem(
                        "overlap",
                        f"{file}:{where} {pixels} pixels of its windows are in those of "
                        f"{other_name}, too; part them by area (split), or give other rasters",
                    )
                )
    return problems


def _areas(records: Sequence[dict[str, Any]]) -> dict[str, set[Area]]:
    """File -> the areas that windows of it lie in."""
    found: dict[str, set[Area]] = {}
    for name, area in _windows(records):
        found.setdefault(name, set()).add(area)
    return {os.path.realpath(name): areas for name, areas in found.items()}


def _windows(records: Sequence[dict[str, Any]]) -> Iterator[tuple[str, Area]]:
    for record in records:
        name = record.get("file_name") if isinstance(record, dict) else None
        if not isinstance(name, str) or file_of(name) == name:
            continue
        file, area = split_name(name)
        training = record.get("training_window")
        known = area if training is None else training.area
        if known is not None:
            yield file, known


def _place(file: str) -> tuple[Any, Any]:
    with open_raster(Path(file)) as raster:
        return raster.crs, raster.transform


def _in_pixels_of(
    places: dict[str, tuple[Any, Any]], file: str, other: str, area: Area
) -> Area | None:
    """An area of another raster in the pixels of `file`; None where places cannot be compared."""
    (crs, transform), (other_crs, other_transform) = places[file], places[other]
    if crs is None or crs != other_crs:
        return None
    corners = mapped(~transform, corners_of(area, other_transform))
    (x0, y0), (x1, y1) = (np.rint(c).astype(int).tolist() for c in (corners.min(0), corners.max(0)))
    return Area(x0, y0, x1 - x0, y1 - y0)
