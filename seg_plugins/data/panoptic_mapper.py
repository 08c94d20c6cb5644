"""The mapper for panoptic segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import MetadataCatalog
from detectron2.structures import BitMasks, Boxes, Instances

from ..io.panoptic import read_segment_ids
from .augmentation_builder import ignore_label_of
from .augmentations import Content
from .elastic import Warp
from .errors import DatasetError
from .image_mapper import ImageMapper, check_size, label_to_tensor
from .instance_masks import mask_bounds

__all__ = ["PanopticMapper"]

_POSSIBLE_IDS = 1 << 24


class PanopticMapper(ImageMapper):
    """Read one sample of panoptic segmentation: semantic label and instances of one crop.

    From a dict with ``pan_seg_file_name`` and ``segments_info`` whose category ids are contiguous,
    in training, ``sem_seg`` (H, W) int64 and ``instances`` (``gt_boxes``, ``gt_classes``,
    ``gt_masks`` as bitmasks). Crowds count for the semantic label alone.

    Args:
        thing_ids: contiguous ids of the things, in the order of the instance classes.
        ignore_label: of pixels without a segment.
        stuff_ids: contiguous ids of the stuff. If given, the semantic label has all things as
            class 0 and this stuff as 1, 2, ... (Kirillov et al. 2019, Panoptic FPN); None keeps
            the ids of all classes.
        **shared: see `ImageMapper`.
    """

    @configurable
    def __init__(
        self,
        *,
        thing_ids: Sequence[int],
        ignore_label: int = 255,
        stuff_ids: Sequence[int] | None = None,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        self.thing_classes = {class_id: i for i, class_id in enumerate(thing_ids)}
        self.ignore_label = ignore_label
        self.semantic_ids: dict[int, int] | None = None
        if stuff_ids is not None:
            self.semantic_ids = dict.fromkeys(thing_ids, 0)
            self.semantic_ids |= {class_id: i for i, class_id in enumerate(stuff_ids, 1)}

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """Arguments of the constructor; the classes are those of the first dataset."""
        names = cfg.DATASETS.TRAIN or cfg.DATASETS.TEST
        metadata = MetadataCatalog.get(names[0])
        classes = metadata.stuff_classes
        if "thing_dataset_id_to_contiguous_id" in metadata.as_dict():
            things = set(metadata.thing_dataset_id_to_contiguous_id.values())
        else:  # the ids of the annotation file are known only once it is loaded
            things = {classes.index(name) for name in metadata.thing_classes}
        stuff = [i for i in range(len(classes)) if i not in things]
        return super().from_config(cfg, is_train) | {
            "thing_ids": sorted(things),
            "ignore_label": ignore_label_of(cfg),
            "stuff_ids": stuff if cfg.INPUT.PANOPTIC_THINGS_AS_ONE else None,
        }

    def read(self, sample: dict[str, Any], size: tuple[int, int]) -> Content:
        """Read the segments and their classes."""
        if not self.is_train:
            return Content()
        name, segments = sample["pan_seg_file_name"], sample.pop("segments_info")
        ids = self.cached(name, "segments", lambda: read_segment_ids(name))
        check_size(ids, name, sample, size)
        things = [
            s for s in segments if s["category_id"] in self.thing_classes and not s.get("iscrowd")
        ]
        label = self._semantic(ids, segments, name)
        return Content(label, annotations=things, segment_ids=ids)

    def _semantic(self, ids: np.ndarray, segments: list[dict[str, Any]], name: str) -> np.ndarray:
        """The class of each pixel: (H, W) uint8 or uint16."""
        # One entry per possible id, of which only the pages in use are ever touched: several
        # times as fast as sorting the pixels. 0 stands for ids that are not listed.
        lut = np.zeros(_POSSIBLE_IDS, np.uint32)
        lut[0] = self.ignore_label + 1
        for segment in segments:
            class_id = segment["category_id"]
            if self.semantic_ids is not None:
                class_id = self.semantic_ids[class_id]
            lut[segment["id"]] = class_id + 1
        label = lut[ids]
        if not label.all():
            unknown = np.unique(ids[label == 0])[:5].tolist()
            raise DatasetError(f"{name}: segments {unknown} are not in segments_info")
        label -= 1
        return label.astype(np.uint8 if label.max() < 256 else np.uint16)

    def targets(self, content: Content, warp: Warp) -> dict[str, Any]:
        """The label, and the instances as they are seen in it."""
        ids = warp.apply_label(content.segment_ids)
        masks, boxes, classes = [], [], []
        for segment in content.annotations:
            mask = ids == segment["id"]
            bounds = mask_bounds(mask)
            if bounds is not None:
                masks.append(mask)
                boxes.append(bounds)
                classes.append(self.thing_classes[segment["category_id"]])
        instances = Instances(ids.shape)
        instances.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
        instances.gt_classes = torch.tensor(classes, dtype=torch.int64)
        stack = np.stack(masks) if masks else np.zeros((0, *ids.shape), bool)
        instances.gt_masks = BitMasks(torch.from_numpy(stack))
        label = label_to_tensor(warp.apply_label(content.label))
        return {"sem_seg": label, "instances": instances}
