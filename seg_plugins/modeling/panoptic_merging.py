"""From instances and semantic labels to panoptic segments (Kirillov et al. 2019, section 7.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.structures import Instances
from torch import Tensor

from ..ops.panoptic_merge import merge_segments
from ..ops.precision import widest_float


def merge_panoptic(
    instances: Instances,
    labels: Tensor,
    num_labels: int,
    *,
    thing_ids: Sequence[int] = (),
    overlap_threshold: float = 0.5,
    stuff_area_threshold: float = 4096,
    score_threshold: float = 0.5,
) -> tuple[Tensor, list[dict[str, Any]]]:
    """Detectron2's ``combine_semantic_and_instance_outputs``, with the same result, in bulk.

    Instances claim pixels by falling score. One that scores less than `score_threshold` or
    overlaps what is claimed by more than `overlap_threshold` of its area is dropped. Stuff takes
    what is left, where a label has at least `stuff_area_threshold` pixels of it. What gets no
    pixel is no segment, whatever the thresholds (Detectron2 describes one of area 0).

    Merging runs on the labels' device; what describes the segments is read from it in a fixed
    number of copies.

    Args:
        instances: of the image's size: ``scores``, ``pred_classes``, and ``pred_masks``,
            (N, H, W) bool or :class:`~seg_plugins.ops.run_length.RunLengthMasks`.
        labels: (H, W) int64, the semantic label of each pixel.
        num_labels: number of semantic labels K.
        thing_ids: semantic label of each instance class, which becomes the segments'
            ``category_id``; those labels are no stuff. Empty, as in Detectron2: label 0 stands
            for all things and ``category_id`` is the instance class.
        overlap_threshold: share of an instance's area.
        stuff_area_threshold: pixels.
        score_threshold: least score of an instance.

    Returns:
        ids: (H, W) int32; 0 is void.
        segments_info: a dict for each id from 1 on. Things have ``id``, ``isthing``, ``score``,
            ``category_id`` and ``instance_id``, the place in `instances`; stuff ``id``,
            ``isthing``, ``category_id`` and ``area`` in pixels.
    """
    scores = instances.scores
    order = torch.argsort(-scores)
    # As Detectron2's loop, which ends at the first low score; in float64, as Python's comparison.
    candidate = (scores[order].to(widest_float(scores.device)) < score_threshold).cumsum(0) == 0
    is_stuff = torch.ones(num_labels, dtype=torch.bool, device=labels.device)
    is_stuff[list(thing_ids) or [0]] = False
    merged = merge_segments(
        instances.pred_masks,
        order,
        candidate,
        labels,
        is_stuff,
        overlap_threshold=overlap_threshold,
        stuff_area_threshold=stuff_area_threshold,
    )
    segments: list[dict[str, Any]] = []
    places = order[merged.kept_instances]
    rows = (places, scores[places], instances.pred_classes[places])
    for place, score, instance_class in zip(*(row.tolist() for row in rows), strict=True):
        category = thing_ids[instance_class] if thing_ids else instance_class
        segments.append(
            {
                "id": len(segments) + 1,
                "isthing": True,
                "score": score,
                "category_id": category,
                "instance_id": place,
            }
        )
    kept_stuff, areas = merged.kept_stuff.tolist(), merged.stuff_areas.tolist()
    for label, area in ((i, areas[i]) for i in range(num_labels) if kept_stuff[i]):
        segments.append(
            {"id": len(segments) + 1, "isthing": False, "category_id": label, "area": area}
        )
    return merged.ids, segments
