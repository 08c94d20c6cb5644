"""From a model's output for one image to what users do with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.structures import Instances

from ..evaluation.instance_predictions import predicted_masks
from ..io.masks import intersection, mask_area
from ..ops.run_length import RunLengthMasks
from .errors import PredictionError
from .image_result import ImageResult, Panoptic
from .labels import Labels
from .outputs import OutputOptions, save_prediction


class Prediction(ImageResult):
    """The prediction for one image: see :class:`.ImageResult`, from a model and into files."""

    @classmethod
    def from_output(
        cls,
        output: Mapping[str, Any],
        image: np.ndarray,
        labels: Labels,
        min_score: float,
        *,
        gaps: np.ndarray | None = None,
        values: np.ndarray | None = None,
    ) -> Prediction:
        """From a model's output for one image.

        Args:
            output: Detectron2's format, at the image's size.
            image: (H, W, 3) uint8, RGB.
            labels: the model's classes.
            min_score: instances below it are left out.
            gaps: (H, W) bool, pixels without data: they belong to no class, segment or instance.
            values: (H, W, C) as the file holds them, where the image is not the same.

        Raises:
            PredictionError: the output holds nothing of the three kinds.
        """
        instances = panoptic = semantic = None
        if "instances" in output:
            instances = _confident(output["instances"], image.shape[:2], min_score)
            if gaps is not None:
                instances = _without(instances, gaps)
        if "panoptic_seg" in output:
            ids, segments = output["panoptic_seg"]
            panoptic = _panoptic(ids, segments, labels)
            if gaps is not None:
                panoptic[0][gaps] = 0
            semantic = _classes_of_segments(panoptic, labels)
        elif "sem_seg" in output:
            semantic = class_ids(output["sem_seg"], labels)
            if gaps is not None:
                semantic[gaps] = labels.ignore_label
        if instances is None and semantic is None:
            raise PredictionError(
                f"the model gives {', '.join(output) or 'nothing'} for an image; pictures are made "
                "of sem_seg, instances or panoptic_seg (a MODEL.META_ARCHITECTURE that segments)"
            )
        return cls(
            image,
            labels,
            semantic=semantic,
            instances=instances,
            panoptic=panoptic,
            values=values,
            no_data=0 if gaps is None else int(gaps.sum()),
        )

    def save(
        self,
        folder: str | Path,
        name: str = "prediction",
        *,
        save: Sequence[str] = ("overlay",),
        classes: Sequence[str] = (),
    ) -> list[Path]:
        """Write files below a folder, e.g. ``folder/overlay/name.png``.

        What joins all images of the folder (``statistics.csv``, ``instances.json``,
        ``panoptic.json``) is brought up to date as long as they are few; beyond 50 it is removed,
        and :func:`~seg_plugins.prediction.join` writes it after the last.

        Args:
            folder: is made if need be.
            name: of each file, without suffix.
            save: any of :data:`.outputs.KINDS`.
            classes: what ``cutout`` and ``blur`` keep.

        Returns:
            The files, each of them whole.
        """
        options = OutputOptions(save=tuple(save), classes=tuple(classes))
        return save_prediction(self, Path(folder), name, options)

    def to_supervision(self) -> Any:
        """The regions as ``supervision.Detections``, class names in ``data["class_name"]``.

        Raises:
            ModuleNotFoundError: supervision is not installed.
        """
        import supervision  # an optional package: nothing else here needs it

        regions = self.regions
        names = [label.name for label in self.labels.all]
        corners = np.array([region.box for region in regions], np.float32).reshape(-1, 4)
        corners[:, 2:] += corners[:, :2]
        masks = [region.bitmask for region in regions]
        scores = [1.0 if region.score is None else region.score for region in regions]
        return supervision.Detections(
            xyxy=corners,
            mask=np.stack(masks) if masks else None,
            confidence=np.array(scores, np.float32),
            class_id=np.array([names.index(region.label.name) for region in regions], int),
            data={"class_name": np.array([region.label.name for region in regions])},
        )


def class_ids(scores: torch.Tensor, labels: Labels) -> np.ndarray:
    """(K, H, W) scores to (H, W) class ids; one logit decides between classes 0 and 1."""
    # max's indices are argmax's, in a tenth of the time on a CPU.
    ids = scores.max(dim=0).indices if len(scores) > 1 else scores[0] > 0
    return ids.cpu().numpy().astype(id_type(labels))


def id_type(labels: Labels) -> type[np.unsignedinteger]:
    """The narrowest type that holds the class ids and the ignore label."""
    return np.uint8 if max(len(labels.stuff) - 1, labels.ignore_label) < 256 else np.uint16


def _confident(instances: Instances, size: Sequence[int], min_score: float) -> Instances:
    instances = instances[instances.scores >= min_score]
    instances = instances[instances.scores.argsort(descending=True, stable=True)].to("cpu")
    if instances.has("pred_masks"):
        instances.pred_masks = predicted_masks(instances, (size[0], size[1]))
    return instances


def _without(instances: Instances, gaps: np.ndarray) -> Instances:
    """Instances whose masks leave pixels out; those of which nothing remains are dropped."""
    if not instances.has("pred_masks"):
        return instances
    [there] = RunLengthMasks.from_bitmasks(~gaps[None]).to_coco()
    cut = [intersection(mask, there) for mask in instances.pred_masks.to_coco()]
    kept = np.array([mask_area(mask) > 0 for mask in cut], bool)
    instances = instances[torch.from_numpy(kept)]
    instances.pred_masks = RunLengthMasks.from_coco(
        [mask for mask, there in zip(cut, kept, strict=True) if there], *gaps.shape
    )
    return instances


def _panoptic(
    ids: torch.Tensor, segments: Sequence[Mapping[str, Any]] | None, labels: Labels
) -> Panoptic:
    found = ids.cpu().numpy().astype(np.int32)
    if segments is not None:
        return found, [dict(segment) for segment in segments]
    # Panoptic-DeepLab: category * divisor + instance, and -1 where there is nothing.
    found = found + 1
    listed = []
    for value in np.unique(found[found > 0]).tolist():
        category = (value - 1) // labels.label_divisor
        thing = labels.stuff[category].is_thing
        listed.append({"id": value, "category_id": category, "isthing": thing})
    return found, listed


def _classes_of_segments(panoptic: Panoptic, labels: Labels) -> np.ndarray:
    ids, segments = panoptic
    place = {label.name: i for i, label in enumerate(labels.stuff)}
    classes = {
        segment["id"]: place.get(labels.of_segment(segment).name, labels.ignore_label)
        for segment in segments
    }
    values, index = np.unique(ids, return_inverse=True)  # one pass, however many segments
    of_values = [classes.get(value, labels.ignore_label) for value in values.tolist()]
    return np.array(of_values, id_type(labels))[index.reshape(ids.shape)]
