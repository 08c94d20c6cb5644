"""What a prediction found, one region at a time, whatever the kind of system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from detectron2.structures import Instances

from ..evaluation.instance_predictions import predicted_boxes, predicted_masks
from ..io.masks import boxes_to_run_lengths, mask_area, mask_box, to_bitmask
from ..ops.run_length import RunLengthMasks, encode_label_map
from ..visualization import overlays
from .labels import Label, Labels


@dataclass(frozen=True)
class Region:
    """One thing found, or all pixels of one class.

    Attributes:
        label: its class.
        mask: COCO's compressed run lengths, ``{"size": [h, w], "counts": bytes}``.
        color: (R, G, B) that it is drawn in.
        score: confidence in [0, 1]; None where the model gives none.
        segment_id: its value in the panoptic map; 0 outside panoptic segmentation.
        own_box: x, y, width, height in pixels as the model gives it; None where it gives none.
    """

    label: Label
    mask: dict[str, Any]
    color: tuple[int, int, int]
    score: float | None = None
    segment_id: int = 0
    own_box: tuple[float, float, float, float] | None = None

    @property
    def area(self) -> int:
        """Pixels."""
        return mask_area(self.mask)

    @property
    def bitmask(self) -> np.ndarray:
        """(H, W) bool."""
        return to_bitmask(self.mask, *self.mask["size"])

    @property
    def box(self) -> list[float]:
        """X, y, width and height in pixels: the model's own box, or else that of the mask."""
        sides = mask_box(self.mask) if self.own_box is None else self.own_box
        return [float(side) for side in sides]


def class_regions(ids: np.ndarray, labels: Labels) -> list[Region]:
    """One region for each class in an (H, W) map of class ids; the ignore label is none."""
    regions = []
    for value, counts in encode_label_map(ids).items():
        if value < len(labels.stuff):
            label = labels.stuff[value]
            mask = {"size": list(ids.shape), "counts": counts}
            regions.append(Region(label, mask, label.color))
    return regions


def segment_regions(
    ids: np.ndarray, segments: Sequence[Mapping[str, Any]], labels: Labels
) -> list[Region]:
    """The listed segments of an (H, W) panoptic map, things in colours of their own."""
    # Run lengths are made from small numbers: the place of the segment in the list.
    known = np.array(sorted(segment["id"] for segment in segments), ids.dtype)
    place = np.searchsorted(known, ids).clip(max=max(len(known) - 1, 0))
    found = known[place] == ids if len(known) else np.zeros(ids.shape, bool)
    codes = encode_label_map(np.where(found, place + 1, 0).astype(np.uint16))
    regions: list[Region] = []
    things = 0
    for segment in segments:
        counts = codes.get(int(np.searchsorted(known, segment["id"])) + 1)
        if counts is None:  # not a pixel is left of it
            continue
        thing, label = bool(segment["isthing"]), labels.of_segment(segment)
        color = overlays.instance_color(things) if thing else label.color
        things += label.is_thing
        mask = {"size": list(ids.shape), "counts": counts}
        regions.append(Region(label, mask, color, segment.get("score"), int(segment["id"])))
    return regions


def instance_regions(instances: Instances, size: Sequence[int], labels: Labels) -> list[Region]:
    """Instances of an image of `size` (H, W); their boxes where the system finds no masks."""
    masks = instance_masks(instances, (size[0], size[1]))
    found = zip(
        instances.pred_classes.tolist(),
        instances.scores.tolist(),
        predicted_boxes(instances).tolist(),
        strict=True,
    )
    return [
        Region(
            labels.of_instance(class_id),
            {"size": list(size), "counts": masks.string(i)},
            overlays.instance_color(i),
            score,
            own_box=(box[0], box[1], box[2], box[3]),
        )
        for i, (class_id, score, box) in enumerate(found)
    ]


def instance_masks(instances: Instances, size: tuple[int, int]) -> RunLengthMasks:
    """Masks of instances, or else their boxes filled."""
    masks = predicted_masks(instances, size)
    if masks is not None:
        return masks
    corners = instances.pred_boxes.tensor.double().numpy()
    boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    return RunLengthMasks.from_coco(boxes_to_run_lengths(boxes, *size), *size)
