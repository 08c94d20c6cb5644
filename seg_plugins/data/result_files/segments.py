"""COCO's panoptic results: a JSON file, and a folder of PNGs whose colours are segment ids."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..datasets.files import inside
from ..errors import DatasetError
from .listed import ResultFile

__all__ = ["PanopticResult", "panoptic_results"]


@dataclass(frozen=True)
class PanopticResult:
    """What was found in one image.

    Attributes:
        image_id: in the file.
        png: the segment ids, as colours.
        segments: (id, category id in the file) of each.
    """

    image_id: Hashable
    png: Path
    segments: list[tuple[int, int]]


def panoptic_results(file: ResultFile) -> list[PanopticResult]:
    """Check a file's images; their PNGs lie in the folder beside it that is called as it is.

    So panopticapi has it: ``results.json`` and ``results/``.

    Raises:
        DatasetError: there is no such folder, or a field is missing or of the wrong type.
    """
    folder = file.path.with_suffix("")
    if not folder.is_dir():
        raise DatasetError(
            f"{file.path}: there is no folder {folder.name}/ beside it, which holds the PNGs of "
            "the segments: call it as the file is called"
        )
    return [_result(file, folder, place) for place in range(len(file.records))]


def _result(file: ResultFile, folder: Path, place: int) -> PanopticResult:
    record = file.records[place]
    image_id, name, segments = (record.get(k) for k in ("image_id", "file_name", "segments_info"))
    if not isinstance(image_id, int | str) or isinstance(image_id, bool):
        raise file.fail(place, f"image_id should be a number or text, not {image_id!r}")
    if not isinstance(name, str):
        raise file.fail(place, f"file_name should be text, not {name!r}")
    if not isinstance(segments, list):
        raise file.fail(place, f"segments_info should be a list, not {str(segments)[:60]}")
    try:
        png = folder / inside(name)
    except DatasetError as error:
        raise file.fail(place, str(error)) from None
    if not png.is_file():
        raise file.fail(place, f"its {png} is not there")
    return PanopticResult(image_id, png, [_segment(file, place, s) for s in segments])


def _segment(file: ResultFile, place: int, segment: Any) -> tuple[int, int]:
    fields = segment if isinstance(segment, dict) else {}
    number, category = fields.get("id"), fields.get("category_id")
    for value in (number, category):
        if not isinstance(value, int) or isinstance(value, bool):
            raise file.fail(
                place,
                f"a segment should have id and category_id, integers, not {str(segment)[:60]}",
            )
    assert isinstance(number, int)
    assert isinstance(category, int)
    return number, category
