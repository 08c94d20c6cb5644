"""What is found in one image, and the pictures of it that users ask for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from detectron2.structures import Instances

from ..visualization import legend, overlays
from . import effects
from .labels import BACKGROUND, Labels
from .regions import Region, class_regions, instance_masks, instance_regions, segment_regions

Panoptic = tuple[np.ndarray, list[dict[str, Any]]]


class ImageResult:
    """What is found in one image, at its size. Pictures are (H, W, 3) uint8 in RGB.

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
        values: (H, W, C) as the file holds them; the picture where they are no other.
        no_data: pixels without data, which belong to nothing.
    """

    def __init__(
        self,
        image: np.ndarray,
        labels: Labels,
        *,
        semantic: np.ndarray | None = None,
        instances: Instances | None = None,
        panoptic: Panoptic | None = None,
        values: np.ndarray | None = None,
        no_data: int = 0,
    ) -> None:
        self.no_data = no_data
        self.image, self.labels = image, labels
        self.values = image if values is None else values
        self.semantic, self.instances, self.panoptic = semantic, instances, panoptic

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

    def color_mask(self) -> np.ndarray:
        """The regions in their colours on black."""
        return overlays.semantic(np.zeros_like(self.image), *self._painting(), opacity=1.0)

    def draw(self, *, with_legend: bool = True, clear: Sequence[str] | None = None) -> np.ndarray:
        """The regions over the image, above a legend of their classes and scores.

        Args:
            with_legend: False leaves it out.
            clear: names of classes that are not drawn; None: what is called background.

        Raises:
            ClassNameError: an unknown name.
        """
        hidden = self.labels.clear(clear)
        picture = overlays.semantic(self.image, *self._painting(hidden))
        if self.instances is not None or self.panoptic is not None:
            for region in self.regions:
                if region.label.is_thing and region.label.name not in hidden:
                    overlays.outline(picture, region.bitmask.view(np.uint8), region.color)
        return legend.below(picture, self.legend(hidden)) if with_legend else picture

    def legend(
        self, hidden: frozenset[str] = frozenset()
    ) -> list[tuple[tuple[int, int, int], str]]:
        """Colour and text of each region but those of the classes in `hidden`."""
        pixels = self.image.shape[0] * self.image.shape[1]
        return [
            (
                region.color,
                f"{region.label.name} {region.score:.2f}"
                if region.score is not None
                else f"{region.label.name} {100 * region.area / pixels:.1f}%",
            )
            for region in self.regions
            if region.label.name not in hidden
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

    def _painting(self, hidden: frozenset[str] = frozenset()) -> tuple[np.ndarray, np.ndarray, int]:
        """(H, W) index of each pixel's region, their (N, 3) colours, and the index of none."""
        if self.panoptic is None and self.semantic is not None:
            colors = np.array([label.color for label in self.labels.stuff], np.uint8)
            ids = self.labels.without(self.semantic, hidden)
            return ids, colors, self.labels.ignore_label
        index = np.full(self.image.shape[:2], len(self.regions), np.int32)
        for i in range(len(self.regions) - 1, -1, -1):
            if self.regions[i].label.name not in hidden:
                index[self.regions[i].bitmask] = i
        colors = np.array([region.color for region in self.regions], np.uint8).reshape(-1, 3)
        if not len(colors):
            colors = np.zeros((1, 3), np.uint8)
        return index, colors, len(self.regions)
