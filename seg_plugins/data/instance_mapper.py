"""The mapper for instance segmentation."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances, PolygonMasks

from ..config import ConfigError
from .augmentations import Content
from .elastic import Warp
from .errors import DatasetError
from .image_mapper import ImageMapper, label_to_tensor
from .instance_masks import (
    Bounds,
    clipped_bounds,
    mask_bounds,
    move_polygons,
    polygons_to_mask,
    rle_to_mask,
)

__all__ = ["InstanceMapper"]

# Detectron2 drops boxes with a side up to this length after augmentation.
_MIN_SIDE = 1e-5


class InstanceMapper(ImageMapper):
    """Read one sample of detection or instance segmentation and augment it.

    From a dict with ``annotations``, in training, ``instances``: ``gt_boxes`` (XYXY, pixels of
    the augmented image, clipped to it), ``gt_classes`` and, where all objects have one,
    ``gt_masks``. Crowds and what lies outside the crop are left out. A dict that has
    ``sem_seg_file_name`` too, as those of Detectron2's "separated" panoptic datasets, gives
    ``sem_seg`` (H, W) int64 as well.

    Args:
        mask_format: "polygon"; "bitmask", which run lengths and elastic deformation need; or
            "none" for boxes alone.
        needs_masks: refuse objects without a mask; False takes their boxes, cut at the crop.
        **shared: see `ImageMapper`.
    """

    combines_by: ClassVar[tuple[str, ...]] = ("COPY_PASTE",)
    reads_masks: ClassVar[bool] = True

    @configurable
    def __init__(
        self, *, mask_format: str = "polygon", needs_masks: bool = True, **shared: Any
    ) -> None:
        super().__init__(**shared)
        if mask_format not in ("polygon", "bitmask", "none"):
            raise ConfigError(
                f"INPUT.MASK_FORMAT is {mask_format!r}; it should be 'polygon', 'bitmask' or 'none'"
            )
        if self.elastic is not None and mask_format != "bitmask":
            raise ConfigError(
                f"INPUT.ELASTIC bends outlines, which INPUT.MASK_FORMAT {mask_format!r} cannot "
                "follow; set it to 'bitmask'"
            )
        self.mask_format = mask_format
        self.needs_masks = needs_masks

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """Arguments of the constructor."""
        return super().from_config(cfg, is_train) | {
            "mask_format": cfg.INPUT.MASK_FORMAT,
            "needs_masks": cfg.MODEL.MASK_ON,
        }

    def read(self, sample: dict[str, Any], size: tuple[int, int]) -> Content:
        """Check the annotations and gather their boxes."""
        label = self.read_label(sample, size) if "sem_seg_file_name" in sample else None
        annotations = [a for a in sample.pop("annotations", ()) if not a.get("iscrowd", 0)]
        if not self.is_train:
            return Content()
        for annotation in annotations:
            self._check_mask(annotation, sample["file_name"])
        boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations]
        return Content(label, np.array(boxes, np.float64).reshape(-1, 4), annotations)

    def _check_mask(self, annotation: dict[str, Any], file_name: str) -> None:
        segmentation = annotation.get("segmentation")
        if self.mask_format == "none" or (isinstance(segmentation, list) and segmentation):
            return
        if not segmentation:
            where = (
                f"{file_name}: annotation {annotation.get('id', '?')} has no mask (segmentation)"
            )
            if self.needs_masks:
                raise DatasetError(f"{where}; MODEL.MASK_ON False trains on boxes alone")
            if self.elastic is not None:
                raise DatasetError(
                    f"{where}, and INPUT.ELASTIC cannot bend a box; set INPUT.ELASTIC.SIGMA 0.0"
                )
            return
        if self.mask_format == "polygon":
            raise DatasetError(
                f"{file_name}: annotation {annotation.get('id', '?')} has run lengths (RLE) where "
                "INPUT.MASK_FORMAT is 'polygon'; set it to 'bitmask'"
            )

    def targets(self, content: Content, warp: Warp) -> dict[str, Any]:
        """The instances, and the semantic label if there is one."""
        found: dict[str, Any] = {"instances": self._instances(content, warp)}
        if content.label is not None:
            found["sem_seg"] = label_to_tensor(warp.apply_label(content.label))
        return found

    def _instances(self, content: Content, warp: Warp) -> Instances:
        geometry = warp.geometry
        height, width = geometry.output_size
        corners = geometry.apply_points(content.boxes.reshape(-1, 2)).reshape(-1, 2, 2)
        moved = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
        boxes = np.clip(moved, 0, np.tile([width, height], 2))
        kept = (boxes[:, 2:] - boxes[:, :2] > _MIN_SIDE).all(axis=1)

        masks: list[Any] = []
        if self.mask_format != "none":
            # Where objects are cut or bent, their boxes become those of what is left.
            whole = np.allclose(geometry.box, (0, 0, *geometry.source[::-1]))
            for index in np.flatnonzero(kept):
                segmentation = content.annotations[index].get("segmentation")
                if not segmentation:
                    continue  # its box, cut at the crop, is all there is
                mask, bounds = self._mask(segmentation, warp)
                if bounds is None:
                    kept[index] = False
                    continue
                masks.append(mask)
                if not whole or warp.field is not None:
                    boxes[index] = bounds
        instances = Instances((height, width))
        instances.gt_boxes = Boxes(torch.from_numpy(boxes[kept].astype(np.float32)))
        classes = [content.annotations[i]["category_id"] for i in np.flatnonzero(kept)]
        instances.gt_classes = torch.tensor(classes, dtype=torch.int64)
        if len(masks) < len(classes):
            return instances
        if self.mask_format == "polygon":
            instances.gt_masks = PolygonMasks(masks)
        elif self.mask_format == "bitmask":
            stack = np.stack(masks) if masks else np.zeros((0, height, width), bool)
            instances.gt_masks = BitMasks(torch.from_numpy(stack))
        return instances

    def _mask(self, segmentation: Any, warp: Warp) -> tuple[Any, Bounds | None]:
        """The mask in the output frame and its bounds; bounds None where nothing is left."""
        geometry = warp.geometry
        height, width = geometry.output_size
        mask = np.zeros((height, width), bool)
        if isinstance(segmentation, dict):
            rle_to_mask(segmentation, geometry, mask)
            mask = warp.deform(mask)
            return mask, mask_bounds(mask)
        polygons = move_polygons(segmentation, geometry)
        bounds = clipped_bounds(polygons, height, width)
        if self.mask_format == "polygon" or bounds is None:
            return polygons, bounds
        bounds = polygons_to_mask(polygons, mask)
        if warp.field is not None:
            mask = warp.deform(mask)
            bounds = mask_bounds(mask)
        return mask, bounds
