"""Augmentations that put several samples into one; they wrap a mapper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.structures import BitMasks, Boxes, Instances

from .errors import DatasetError
from .image_mapper import generator
from .instance_masks import mask_bounds

__all__ = ["CopyPaste", "Mosaic"]

Mapper = Callable[[dict[str, Any], np.random.Generator], dict[str, Any]]
# An instance that pasting covers, or the frame cuts, down to fewer pixels is dropped.
_MIN_PIXELS = 16


class _MultiImage:
    """A mapper that puts other images' samples into some of its samples.

    Args:
        mapper: the mapper of single images.
        records: dataset dicts of the other images.
        probability: of combining.
    """

    def __init__(
        self, mapper: Mapper, records: Sequence[dict[str, Any]], *, probability: float = 0.5
    ) -> None:
        self.mapper = mapper
        self.records = records
        self.probability = probability

    def __call__(
        self, dataset_dict: dict[str, Any], rng: np.random.Generator | None = None
    ) -> dict[str, Any]:
        """Map one dataset dict to a sample, see the wrapped mapper."""
        rng = generator(rng)
        sample = self.mapper(dataset_dict, rng)
        return sample if rng.random() >= self.probability else self.combine(sample, rng)

    def another(self, rng: np.random.Generator) -> dict[str, Any]:
        """The sample of a random record."""
        return self.mapper(self.records[int(rng.integers(len(self.records)))], rng)

    def combine(self, sample: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Put other samples into this one."""
        raise NotImplementedError


class CopyPaste(_MultiImage):
    """Paste a random subset of another image's instances (Ghiasi et al. 2021).

    Both images are augmented on their own before. Needs ``instances`` with bitmasks. A
    semantic label in the sample, ``sem_seg``, gets the other label's values where it is covered.
    """

    def combine(self, sample: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Paste about half of another image's instances."""
        other = self.another(rng)
        base, pasted = sample["instances"], other["instances"]
        if not (base.has("gt_masks") and pasted.has("gt_masks")):
            raise DatasetError(
                f"{sample['file_name']} or {other['file_name']}: INPUT.COPY_PASTE needs a mask of "
                "each object; set it to 0.0 for boxes alone"
            )
        pasted = pasted[torch.from_numpy(rng.random(len(pasted)) < 0.5)]
        size = sample["image"].shape[1:]
        masks = _fit(pasted.gt_masks.tensor, size)
        inside = masks.flatten(1).sum(1) >= _MIN_PIXELS
        pasted, masks = pasted[inside], masks[inside]
        cover = masks.any(dim=0)
        for key in ("image", "sem_seg"):
            if key in sample:
                sample[key] = torch.where(cover, _fit(other[key], size), sample[key])
        sample["instances"] = Instances.cat(
            [_uncovered(base, cover), _with_masks(pasted, masks, tuple(size))]
        )
        return sample


class Mosaic(_MultiImage):
    """Four images around a random centre (Bochkovskiy et al. 2020), for semantic segmentation.

    Each quarter shows what its image has there; where that image is smaller, the pixels are 0 and
    ignored.

    Args:
        mapper: of ``sem_seg`` alone.
        records: dataset dicts for three of the quarters.
        probability: of combining.
        ignore_label: for pixels without an image.
    """

    def __init__(
        self,
        mapper: Mapper,
        records: Sequence[dict[str, Any]],
        *,
        probability: float = 0.5,
        ignore_label: int = 255,
    ) -> None:
        super().__init__(mapper, records, probability=probability)
        self.ignore_label = ignore_label

    def combine(self, sample: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Fill three quarters from other images."""
        height, width = sample["image"].shape[1:]
        y = int(rng.integers(height // 4, height - height // 4 + 1))
        x = int(rng.integers(width // 4, width - width // 4 + 1))
        rows, columns = (slice(0, y), slice(y, height)), (slice(0, x), slice(x, width))
        corners = [(row, column) for row in rows for column in columns]
        own = int(rng.integers(4))
        fills = {"image": 0, "sem_seg": self.ignore_label, "sem_seg_weights": 0}
        parts = {key: sample[key].clone() for key in fills if key in sample}
        for number, (row, column) in enumerate(corners):
            if number == own:
                continue
            other = self.another(rng)
            for key, target in parts.items():
                fitted = _fit(other[key], (height, width), fills[key])
                target[..., row, column] = fitted[..., row, column]
        return sample | parts


def _fit(values: torch.Tensor, size: Sequence[int], fill: int = 0) -> torch.Tensor:
    """Cut or fill the last two axes at the right and the bottom to (height, width)."""
    values = values[..., : size[0], : size[1]]
    missing = (0, size[1] - values.shape[-1], 0, size[0] - values.shape[-2])
    return torch.nn.functional.pad(values, missing, value=fill) if any(missing) else values


def _uncovered(instances: Instances, cover: torch.Tensor) -> Instances:
    """Instances as they are where nothing covers them, else what is left of them, if enough."""
    masks = instances.gt_masks.tensor
    touched = (masks & cover).flatten(1).any(1)
    left = masks & ~cover
    enough = left.flatten(1).sum(1) >= _MIN_PIXELS
    cut = _with_masks(instances[touched & enough], left[touched & enough], instances.image_size)
    kept = Instances.cat([instances[~touched], cut])
    # In the former order, so that the sample does not tell what was pasted over.
    places = torch.cat([torch.where(~touched)[0], torch.where(touched & enough)[0]])
    return kept[torch.argsort(places)]


def _with_masks(instances: Instances, masks: torch.Tensor, size: tuple[int, int]) -> Instances:
    """The instances in a frame of another size, with these masks and their boxes."""
    boxes = [mask_bounds(mask) for mask in masks.numpy()]
    changed = Instances(size)
    changed.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    changed.gt_classes = instances.gt_classes
    changed.gt_masks = BitMasks(masks)
    return changed
