"""Instances that several views of an image found, put together by a vote on their masks.

A one-stage system cannot be asked for the mask in a given box, so its views vote as in MNC (Dai et
al. 2016, "Instance-aware semantic segmentation via multi-task network cascades"):
instances of all views are gone through by falling score. One that overlaps the first of a group of
its class by more than a threshold, in IoU of masks, joins the group; else it begins one. The group
has the score of its first, and the pixels on which members with more than half of the sum of their
scores agree. A group has at most one member of each view, since within a view the system's own
suppression has decided: with a single view nothing changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from ...ops.run_length import RunLengthMasks, mask_iou
from ...ops.suppression import falling
from ..instance_representations.mask_forms import extents


@dataclass
class _Group:
    """Places of instances that are taken for the same object, the best one first."""

    members: list[int]
    views: set[int]


class MaskVote:
    """Collects what the views found.

    At hand are the run lengths of all views, and the bitmasks of one object at a time.

    Args:
        height: rows of the output.
        width: columns of the output.
        overlap_threshold: IoU of masks above which two views found the same object.
        detections: most instances of the result.
    """

    def __init__(
        self, height: int, width: int, *, overlap_threshold: float, detections: int
    ) -> None:
        self.height, self.width = height, width
        self.overlap_threshold, self.detections = overlap_threshold, detections
        self._found: list[Instances] = []

    def add(self, instances: Instances) -> None:
        """Take in what a view found.

        Args:
            instances: of the output's size and upright: ``pred_boxes``, ``scores``,
                ``pred_classes`` and ``pred_masks``,
                :class:`~seg_plugins.ops.run_length.RunLengthMasks`.
        """
        self._found.append(instances)

    def result(self, mask_format: str) -> Instances:
        """The objects by falling score.

        Args:
            mask_format: ``bitmask`` or ``rle``: see
                :class:`~..meta_arch.mask_rcnn.MaskRCNNFPN`.
        """
        scores = torch.cat([found.scores for found in self._found])
        classes = torch.cat([found.pred_classes for found in self._found])
        boxes = torch.cat([found.pred_boxes.tensor for found in self._found]).cpu()
        strings = [found.pred_masks.string(i) for found in self._found for i in range(len(found))]
        views = [view for view, found in enumerate(self._found) for _ in range(len(found))]
        groups = self._groups(scores, classes, views, strings)
        masks: list[Tensor] = []
        encoded: list[bytes] = []
        for group in groups:
            best = group.members[0]
            string = strings[best]
            if len(group.members) > 1:
                weights = scores[group.members].tolist()
                mask = self._agreed([strings[i] for i in group.members], weights)
                if mask.any():  # it may be none at a threshold below 0.5
                    top, left, bottom, right = extents(mask[None])[0].tolist()
                    boxes[best] = torch.tensor([left, top, right, bottom])
                    string = RunLengthMasks.from_bitmasks(mask[None]).string(0)
            if mask_format == "rle":
                encoded.append(string)
            else:
                masks.append(torch.from_numpy(self._bitmask(string)).bool().to(scores.device))
        kept = [group.members[0] for group in groups]
        result = Instances((self.height, self.width))
        result.pred_boxes = Boxes(boxes[kept].to(scores.device))
        result.scores, result.pred_classes = scores[kept], classes[kept]
        if mask_format == "rle":
            result.pred_masks = RunLengthMasks.from_strings(encoded, self.height, self.width)
        else:
            none = torch.zeros(0, self.height, self.width, dtype=torch.bool, device=scores.device)
            result.pred_masks = torch.stack(masks) if masks else none
        return result

    def _groups(
        self, scores: Tensor, classes: Tensor, views: Sequence[int], strings: Sequence[bytes]
    ) -> list[_Group]:
        of_class: dict[int, list[_Group]] = {}
        groups: list[_Group] = []
        labels = classes.tolist()
        for place in falling(scores).tolist():
            rivals = of_class.setdefault(labels[place], [])
            free = [group for group in rivals if views[place] not in group.views]
            if free:
                leaders = [strings[group.members[0]] for group in free]
                overlaps = mask_iou(self._masks([strings[place]]), self._masks(leaders))[0]
                nearest = int(overlaps.argmax())
                if overlaps[nearest] > self.overlap_threshold:
                    free[nearest].members.append(place)
                    free[nearest].views.add(views[place])
                    continue
            # Groups begin by falling score: those after the last wanted one are not wanted.
            if len(groups) < self.detections:
                groups.append(_Group([place], {views[place]}))
                rivals.append(groups[-1])
        return groups

    def _agreed(self, strings: Sequence[bytes], weights: Sequence[float]) -> Tensor:
        """(height, width) bool: where more than half of the weight is."""
        total = np.zeros((self.height, self.width), np.float32)
        for string, weight in zip(strings, weights, strict=True):
            total += self._bitmask(string) * np.float32(weight)
        return torch.from_numpy(total > np.float32(sum(weights) / 2))

    def _masks(self, strings: Sequence[bytes]) -> RunLengthMasks:
        return RunLengthMasks.from_strings(strings, self.height, self.width)

    def _bitmask(self, string: bytes) -> np.ndarray:
        return self._masks([string]).to_bitmasks()[0]
