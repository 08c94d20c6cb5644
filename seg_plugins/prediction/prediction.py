"""What a model says of one image, in the forms that users ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.structures import Instances

from ..evaluation.instance_predictions import predicted_masks
from ..io.masks import intersection, mask_area
from ..ops.run_length import RunLengthMasks
from ..visualization import legend, overlays
from . import effects
from .errors import PredictionError
from .labels import BACKGROUND, Labels
from .regions import Region, class_regions, instance_masks, instance_regions, segment_regions

Panoptic = tuple[np.ndarray, list[dict[str, Any]]]


class Prediction:
    """The prediction for one image, at its size. Pictures are (H, W, 3) uint8 in RGB.

    Attributes:
        image: the picture.
        labels: the classes.
        semantic: (H, W) class ids, uint8 (uint16 for many classes); None for systems that only
            find instances. Of panoptic systems: the class of each segment, else the ignore label.
        instances: Detectron2's Instances on the CPU, by falling score: ``pred_boxes``, ``scores``,
            ``pred_classes`` (:meth:`.Labels.of_instance` names them), ``pred_masks`` (run lengths:
            ``.to_bitmasks()`` or :attr:`masks` give arrays); None for semantic systems.
        panoptic: (H, W) int32 ids and the list of segments in Detectron2's format: ``id``,
            ``isthing``, ``category_id``; None unless the system is panoptic.
    """

    def __init__(
        self,
        image: np.ndarray,
        labels: Labels,
        *,
        semantic: np.ndarray | None = None,
        instances: Instances | None = None,
        panoptic: Panoptic | None = None,
    ) -> None:
        self.image, self.labels = image, labels
        self.semantic, self.instances, self.panoptic = semantic, instances, panoptic

    @classmethod
    def from_output(
        cls,
        output: Mapping[str, Any],
        image: np.ndarray,
        labels: Labels,
        min_score: float,
        *,
        gaps: np.ndarray | None = None,
    ) -> Prediction:
        """From a model's output for one image.

        Args:
            output: Detectron2's format, at the image's size.
            image: (H, W, 3) uint8, RGB.
            labels: the model's classes.
            min_score: instances below it are left out.
            gaps: (H, W) bool, pixels without data: they belong to no class, segment or instance.

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
        return cls(image, labels, semantic=semantic, instances=instances, panoptic=panoptic)

    @property
    def masks(self) -> np.ndarray:
        """(N, H, W) bool masks of the instances; their boxes where the system finds no masks."""
        size = (self.image.shape[0], self.image.shape[1])
        if self.instances is None:
            return np.zeros((0, *size), bool)
        return instance_masks(self.instances, size).to_bitmasks().astype(bool)

    @cached_property
    def regions(self) -> list[Region]:
        """Panoptic segments; else instances; else one region for each class in the image."""
        if self.panoptic is not None:
            return segment_regions(*self.panoptic, self.labels)
        if self.instances is not None:
            return instance_regions(self.instances, self.image.shape[:2], self.labels)
        assert self.semantic is not None  # every system gives one of the three
        return class_regions(self.semantic, self.labels)

    def foreground(self, classes: Sequence[str] = ()) -> np.ndarray:
        """(H, W) bool: the pixels of some classes.

        Args:
            classes: their names; none: everything but the background, or, where no class is one,
                but the largest that is no thing.

        Raises:
            ClassNameError: an unknown name; the nearest are listed.
        """
        names = self.labels.find(classes) if classes else self._subjects()
        mask = np.zeros(self.image.shape[:2], bool)
        for region in self.regions:
            if region.label.name in names:
                mask |= region.bitmask
        return mask

    def _subjects(self) -> list[str]:
        names = [label.name for label in self.labels.all if label.name.lower() not in BACKGROUND]
        if len(names) == len(self.labels.all):
            areas: dict[str, int] = {}
            for region in self.regions:
                if not region.label.is_thing:
                    name = region.label.name
                    areas[name] = areas.get(name, 0) + region.area
            if areas:
                names.remove(max(areas, key=areas.__getitem__))
        return names

    def id_mask(self) -> np.ndarray:
        """(H, W) uint8 or uint16: class ids; of instance systems 1, 2, ... by falling score."""
        if self.semantic is not None:
            return self.semantic
        kind = np.uint8 if len(self.regions) < 256 else np.uint16
        mask = np.zeros(self.image.shape[:2], kind)
        for number in range(len(self.regions), 0, -1):  # the most confident lies on top
            mask[self.regions[number - 1].bitmask] = number
        return mask

    def colour_mask(self) -> np.ndarray:
        """The regions in their colours on black."""
        return overlays.semantic(np.zeros_like(self.image), *self._painting(), opacity=1.0)

    def draw(self, *, with_legend: bool = True) -> np.ndarray:
        """The regions over the image, beside a legend of their classes and scores."""
        picture = overlays.semantic(self.image, *self._painting())
        if self.instances is not None or self.panoptic is not None:
            for region in self.regions:
                if region.label.is_thing:
                    overlays.outline(picture, region.bitmask.view(np.uint8), region.colour)
        return legend.beside(picture, self.legend()) if with_legend else picture

    def legend(self) -> list[tuple[tuple[int, int, int], str]]:
        """Colour and text of each region."""
        pixels = self.image.shape[0] * self.image.shape[1]
        return [
            (
                region.colour,
                f"{region.label.name} {region.score:.2f}"
                if region.score is not None
                else f"{region.label.name} {100 * region.area / pixels:.1f}%",
            )
            for region in self.regions
        ]

    def cutout(self, classes: Sequence[str] = (), *, edge: int | None = None) -> np.ndarray:
        """(H, W, 4) uint8, RGBA: the chosen classes, softly cut out; see :meth:`foreground`.

        Args:
            classes: names of those to keep.
            edge: reach of the soft edge in pixels; None takes a 200th of the longer side.
        """
        alpha = effects.soft_alpha(self.foreground(classes), self.image, edge)
        return effects.cut_out(self.image, alpha)

    def blur(
        self, classes: Sequence[str] = (), *, edge: int | None = None, strength: float = 0.03
    ) -> np.ndarray:
        """The image with everything but the chosen classes out of focus.

        Args:
            classes: names of those that stay sharp; see :meth:`foreground`.
            edge: as for :meth:`cutout`.
            strength: radius of the blur as a fraction of the shorter side.
        """
        alpha = effects.soft_alpha(self.foreground(classes), self.image, edge)
        return effects.blur_background(self.image, alpha, strength)

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
            save: any of overlay, mask, color, cutout, blur, json, panoptic.
            classes: what ``cutout`` and ``blur`` keep.

        Returns:
            The files, each of them whole.
        """
        from .outputs import OutputOptions, save_prediction  # they write what this module makes

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

    def _painting(self) -> tuple[np.ndarray, np.ndarray, int]:
        """(H, W) index of each pixel's region, their (N, 3) colours, and the index of none."""
        if self.panoptic is None and self.semantic is not None:
            colours = np.array([label.colour for label in self.labels.stuff], np.uint8)
            return self.semantic, colours, self.labels.ignore_label
        index = np.full(self.image.shape[:2], len(self.regions), np.int32)
        for i in range(len(self.regions) - 1, -1, -1):
            index[self.regions[i].bitmask] = i
        colours = np.array([region.colour for region in self.regions], np.uint8).reshape(-1, 3)
        if not len(colours):
            colours = np.zeros((1, 3), np.uint8)
        return index, colours, len(self.regions)


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
