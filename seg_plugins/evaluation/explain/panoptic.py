"""What is behind the PQ of saved panoptic predictions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...io.masks import encode_bitmasks, mask_box
from ...io.panoptic import read_segment_colors, read_segment_ids
from ..confusion import divide
from ..errors import EvaluationError
from ..panoptic_quality import PanopticCounts
from .saved import SavedRun, of_file, saved_panoptic
from .segments import REASONS, ImageSegments

#: Merged and split segments that are listed, the largest.
MOST = 12


def explain_panoptic(run: SavedRun) -> dict[str, Any]:
    """Which factor of PQ is lost in each class, and why segments were not found.

    Returns:
        ``quality``: class -> ``PQ``, ``SQ``, ``RQ``, ``precision`` and ``recall`` of segments in
        percent (None of nothing); ``not_found``: class -> number by reason of
        :data:`.segments.REASONS`; and ``merged_or_split``: dicts with ``reason``, ``class``,
        ``file_name``, ``pixels``, the ``box`` and ``mask`` of the true segment and the
        ``predicted_masks`` (COCO's run lengths).

    Raises:
        EvaluationError: the predictions are of another evaluation.
    """
    truth, predictions = run.dataset.panoptic, run.predictions
    names = {category["id"]: category["name"] for category in truth.categories}
    saved = {entry["image_id"]: entry for entry in saved_panoptic(predictions)}
    missing = [r["image_id"] for r in truth.records if r["image_id"] not in saved]
    if missing:
        raise EvaluationError(
            f"{predictions} has {len(saved)} of the {len(truth.records)} images of "
            f"'{run.dataset.name}', not {missing[0]}: evaluate again with "
            "TEST.SAVE_PREDICTIONS True."
        )
    counts = PanopticCounts(list(names))
    slices = run.slices(truth.records)
    parts = {name: PanopticCounts(list(names)) for name in slices}
    reasons = {name: dict.fromkeys(REASONS, 0) for name in names.values()}
    wrong: list[tuple[int, int, str, Mapping[str, Any], list[int]]] = []
    for position, record in enumerate(truth.records):
        entry = saved[record["image_id"]]
        truth_ids = read_segment_colors(str(record["pan_seg_file_name"]))
        own = PanopticCounts(list(names))
        with of_file(predictions, str(entry["path"].name)):
            found_ids = read_segment_colors(str(entry["path"]))
            segments = entry["segments_info"]
            image = ImageSegments(truth_ids, record["segments_info"], found_ids, segments)
            own.add(truth_ids, image.truth, found_ids, image.found)
        counts.merge(own)
        for name, positions in slices.items():
            if position in positions:
                parts[name].merge(own)
        for segment, reason, guesses in image.not_found():
            reasons[names[segment["category_id"]]][reason] += 1
            if reason in ("merged", "split"):
                wrong.append((image.area(segment), position, reason, segment, guesses))
    quality = _quality(counts, list(names.values()))
    run.check("panoptic_seg", "PQ", _mean_quality(counts))
    wrong.sort(key=lambda entry: (-entry[0], entry[1], entry[3]["id"]))
    return {
        "quality": quality,
        "not_found": reasons,
        "merged_or_split": [
            {
                "reason": reason,
                "class": names[segment["category_id"]],
                **_outlines(truth.records[position], saved, segment["id"], guesses),
                "pixels": pixels,
            }
            for pixels, position, reason, segment, guesses in wrong[:MOST]
        ],
        "image_slices": [
            {"slice": name, "images": len(slices[name]), "PQ": _mean_quality(part)}
            for name, part in parts.items()
        ],
    }


def _quality(counts: PanopticCounts, names: list[str]) -> dict[str, dict[str, Any]]:
    columns = {
        **dict(zip(("PQ", "SQ", "RQ"), counts.quality(), strict=True)),
        "precision": divide(counts.tp, counts.tp + counts.fp),
        "recall": divide(counts.tp, counts.tp + counts.fn),
    }
    return {
        name: {column: 100 * float(values[i]) for column, values in columns.items()}
        for i, name in enumerate(names)
    }


def _mean_quality(counts: PanopticCounts) -> float | None:
    """PQ in percent, the mean of the classes that occur."""
    quality, _, _ = counts.quality()
    known = quality[~np.isnan(quality)]
    return 100 * float(known.mean()) if len(known) else None


def _outlines(
    record: Mapping[str, Any], saved: Mapping[Any, Mapping[str, Any]], true: int, guesses: list[int]
) -> dict[str, Any]:
    """Where the segment lies, and the masks of it and of the predictions."""
    entry = saved[record["image_id"]]
    ids = read_segment_ids(str(record["pan_seg_file_name"]))
    found = read_segment_ids(str(entry["path"]))
    masks = np.stack([ids == true, *(found == guess for guess in guesses)])
    rles = [{**rle, "counts": rle["counts"].decode("ascii")} for rle in encode_bitmasks(masks)]
    return {
        "file_name": str(record.get("file_name", "")),
        "image_id": record["image_id"],
        "box": [float(side) for side in mask_box(rles[0])],
        "mask": rles[0],
        "predicted_masks": rles[1:],
    }
