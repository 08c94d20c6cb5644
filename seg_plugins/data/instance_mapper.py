"""The mapper for instance segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances, PolygonMasks

from .augmentations import Augmentation, Content
from .build import build_augmentations, build_cache, build_photometric
from .decoded_cache import DecodedCache
from .errors import DatasetError
from .geometry import Geometry
from .instance_masks import (
    clipped_bounds,
    mask_bounds,
    move_polygons,
    polygons_to_mask,
    rle_to_mask,
)
from .photometric import Photometric
from .sample import generator, image_to_tensor, read_sample_image

__all__ = ["InstanceMapper"]

# Detectron2 drops boxes with a side up to this length after augmentation.
_MIN_SIDE = 1e-5


class InstanceMapper:
    """Read one sample of detection or instance segmentation and augment it.

    Args:
        is_train: read annotations too.
        augmentations: geometry, in order.
        photometric: changes of colour, in order, after the geometry.
        image_format: "RGB", "BGR", "L", or "raw" for the stored channels and depth.
        mask_format: "polygon" or "bitmask"; polygons cannot hold run lengths.
        with_masks: False for boxes alone.
        cache: of decoded images.
    """

    @configurable
    def __init__(
        self,
        *,
        is_train: bool,
        augmentations: Sequence[Augmentation] = (),
        photometric: Sequence[Photometric] = (),
        image_format: str = "BGR",
        mask_format: str = "polygon",
        with_masks: bool = True,
        cache: DecodedCache | None = None,
    ) -> None:
        if mask_format not in ("polygon", "bitmask"):
            raise ValueError(
                f"INPUT.MASK_FORMAT is {mask_format!r}; it should be 'polygon' or 'bitmask'"
            )
        self.is_train = is_train
        self.augmentations = tuple(augmentations)
        self.photometric = tuple(photometric)
        self.image_format = image_format
        self.mask_format = mask_format
        self.with_masks = with_masks
        self.cache = cache

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {
            "is_train": is_train,
            "augmentations": build_augmentations(cfg, is_train),
            "photometric": build_photometric(cfg, is_train),
            "image_format": cfg.INPUT.FORMAT,
            "mask_format": cfg.INPUT.MASK_FORMAT,
            "with_masks": cfg.MODEL.MASK_ON,
            "cache": build_cache(cfg, is_train),
        }

    def __call__(
        self, dataset_dict: dict[str, Any], rng: np.random.Generator | None = None
    ) -> dict[str, Any]:
        """Map one dataset dict to a sample.

        Args:
            dataset_dict: Detectron2's format, with ``annotations``; it is not changed.
            rng: makes the sample a pure function of the arguments; None draws from NumPy's
                global state.

        Returns:
            The dict with ``image`` (C, H, W), values as stored, and, in training, ``instances``:
            ``gt_boxes`` (XYXY, pixels of the augmented image, clipped to it), ``gt_classes`` and
            ``gt_masks``. Crowds and what lies outside the crop are left out.

        Raises:
            DatasetError: an unreadable or wrong file, or run lengths under the polygon format.
        """
        rng = generator(rng)
        sample = dict(dataset_dict)
        image = read_sample_image(sample, self.image_format, self.cache)
        annotations = [a for a in sample.pop("annotations", ()) if not a.get("iscrowd", 0)]
        boxes = np.array(
            [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations],
            np.float64,
        ).reshape(-1, 4)
        geometry = Geometry.identity(image.shape[:2])
        for augmentation in self.augmentations:
            geometry = augmentation(rng, geometry, Content(boxes=boxes))
        image = geometry.apply_image(image)
        for change in self.photometric:
            image = change(rng, image)
        sample["image"] = image_to_tensor(image)
        if self.is_train:
            try:
                sample["instances"] = self._instances(annotations, boxes, geometry)
            except DatasetError as error:
                raise DatasetError(f"{sample['file_name']}: {error}") from None
        return sample

    def _instances(
        self, annotations: list[dict[str, Any]], boxes: np.ndarray, geometry: Geometry
    ) -> Instances:
        height, width = geometry.output_size
        corners = geometry.apply_points(boxes.reshape(-1, 2)).reshape(-1, 2, 2)
        limits = np.tile([width, height], 2)
        moved = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
        moved = np.clip(moved, 0, limits)
        kept = (moved[:, 2:] - moved[:, :2] > _MIN_SIDE).all(axis=1)

        masks: list[Any] = []
        if self.with_masks:
            # A crop cuts objects, so that their boxes shrink to what is left of the masks.
            cut = not np.allclose(geometry.box, (0, 0, *geometry.source[::-1]))
            for index in np.flatnonzero(kept):
                mask, bounds = self._mask(annotations[index], geometry)
                masks.append(mask)
                if bounds is None:
                    kept[index] = False
                    masks.pop()
                elif cut:
                    moved[index] = bounds
        instances = Instances((height, width))
        instances.gt_boxes = Boxes(torch.from_numpy(moved[kept].astype(np.float32)))
        classes = [a["category_id"] for a, keep in zip(annotations, kept, strict=True) if keep]
        instances.gt_classes = torch.tensor(classes, dtype=torch.int64)
        if self.with_masks:
            if self.mask_format == "polygon":
                instances.gt_masks = PolygonMasks(masks)
            else:
                stack = np.stack(masks) if masks else np.zeros((0, height, width), bool)
                instances.gt_masks = BitMasks(torch.from_numpy(stack))
        return instances

    def _mask(
        self, annotation: dict[str, Any], geometry: Geometry
    ) -> tuple[Any, tuple[float, float, float, float] | None]:
        """The mask in the output frame and its bounds; bounds None where nothing is left."""
        segmentation = annotation.get("segmentation")
        height, width = geometry.output_size
        if isinstance(segmentation, list):
            polygons = move_polygons(segmentation, geometry)
            bounds = clipped_bounds(polygons, height, width)
            if self.mask_format == "polygon" or bounds is None:
                return polygons, bounds
            mask = np.zeros((height, width), bool)
            return mask, polygons_to_mask(polygons, mask)
        if not isinstance(segmentation, dict):
            raise DatasetError("an annotation has no segmentation; set MODEL.MASK_ON False")
        if self.mask_format == "polygon":
            raise DatasetError(
                "an annotation has run lengths (RLE) where INPUT.MASK_FORMAT is 'polygon'; set it "
                "to 'bitmask'"
            )
        mask = np.zeros((height, width), bool)
        rle_to_mask(segmentation, geometry, mask)
        return mask, mask_bounds(mask)
