"""The mapper for panoptic segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import MetadataCatalog
from detectron2.structures import BitMasks, Boxes, Instances

from .augmentations import Augmentation, Content
from .build import build_augmentations, build_cache, build_photometric
from .decoded_cache import DecodedCache
from .errors import DatasetError
from .geometry import Geometry
from .image_io import read_label
from .instance_masks import mask_bounds
from .photometric import Photometric
from .sample import check_size, generator, image_to_tensor, read_sample_image

__all__ = ["PanopticMapper", "read_segment_ids"]

_POSSIBLE_IDS = 1 << 24


class PanopticMapper:
    """Read one sample of panoptic segmentation: semantic label and instances of one crop.

    Args:
        is_train: read the segments too.
        thing_ids: contiguous ids of the things, in the order of the instance classes.
        augmentations: geometry, in order.
        photometric: changes of colour, in order, after the geometry.
        image_format: "RGB", "BGR", "L", or "raw" for the stored channels and depth.
        ignore_label: of pixels without a segment.
        stuff_ids: contiguous ids of the stuff. If given, the semantic label has all things as
            class 0 and this stuff as 1, 2, ... (Kirillov et al. 2019, Panoptic FPN); None keeps
            the ids of all classes.
        cache: of decoded images and segments.
    """

    @configurable
    def __init__(
        self,
        *,
        is_train: bool,
        thing_ids: Sequence[int],
        augmentations: Sequence[Augmentation] = (),
        photometric: Sequence[Photometric] = (),
        image_format: str = "BGR",
        ignore_label: int = 255,
        stuff_ids: Sequence[int] | None = None,
        cache: DecodedCache | None = None,
    ) -> None:
        self.is_train = is_train
        self.thing_classes = {class_id: i for i, class_id in enumerate(thing_ids)}
        self.augmentations = tuple(augmentations)
        self.photometric = tuple(photometric)
        self.image_format = image_format
        self.ignore_label = ignore_label
        self.cache = cache
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
        return {
            "is_train": is_train,
            "thing_ids": sorted(things),
            "augmentations": build_augmentations(cfg, is_train),
            "photometric": build_photometric(cfg, is_train),
            "image_format": cfg.INPUT.FORMAT,
            "ignore_label": cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE,
            "stuff_ids": stuff if cfg.INPUT.PANOPTIC_THINGS_AS_ONE else None,
            "cache": build_cache(cfg, is_train),
        }

    def __call__(
        self, dataset_dict: dict[str, Any], rng: np.random.Generator | None = None
    ) -> dict[str, Any]:
        """Map one dataset dict to a sample.

        Args:
            dataset_dict: Detectron2's format, with ``pan_seg_file_name`` and ``segments_info``
                whose category ids are contiguous; it is not changed.
            rng: makes the sample a pure function of the arguments; None draws from NumPy's
                global state.

        Returns:
            The dict with ``image`` (C, H, W), values as stored, and, in training, ``sem_seg``
            (H, W) int64 and ``instances`` (``gt_boxes``, ``gt_classes``, ``gt_masks`` as
            bitmasks). Crowds count for the semantic label alone.

        Raises:
            DatasetError: an unreadable file, a size that differs, or a segment of the PNG that
                ``segments_info`` does not list.
        """
        rng = generator(rng)
        sample = dict(dataset_dict)
        image = read_sample_image(sample, self.image_format, self.cache)
        geometry = Geometry.identity(image.shape[:2])
        ids = label = None
        if self.is_train:
            ids = self._read_ids(sample["pan_seg_file_name"])
            check_size(ids, image, sample, "pan_seg_file_name")
            label = self._semantic(ids, sample)
        for augmentation in self.augmentations:
            geometry = augmentation(rng, geometry, Content(label))
        image = geometry.apply_image(image)
        for change in self.photometric:
            image = change(rng, image)
        sample["image"] = image_to_tensor(image)
        if ids is not None and label is not None:
            sample["sem_seg"] = torch.from_numpy(geometry.apply_label(label).astype(np.int64))
            segments = [
                s
                for s in sample.pop("segments_info")
                if s["category_id"] in self.thing_classes and not s.get("iscrowd", 0)
            ]
            sample["instances"] = self._instances(geometry.apply_label(ids), segments)
        return sample

    def _read_ids(self, file_name: str) -> np.ndarray:
        if self.cache is None:
            return read_segment_ids(file_name)
        return self.cache.get(file_name, "segments", lambda: read_segment_ids(file_name))

    def _semantic(self, ids: np.ndarray, sample: dict[str, Any]) -> np.ndarray:
        """The class of each pixel: (H, W) uint8 or uint16."""
        # One entry per possible id, of which only the pages in use are ever touched: several
        # times as fast as sorting the pixels. 0 stands for ids that are not listed.
        lut = np.zeros(_POSSIBLE_IDS, np.uint16)
        lut[0] = self.ignore_label + 1
        for segment in sample["segments_info"]:
            class_id = segment["category_id"]
            if self.semantic_ids is not None:
                class_id = self.semantic_ids[class_id]
            lut[segment["id"]] = class_id + 1
        label = lut[ids]
        if not label.all():
            unknown = np.unique(ids[label == 0])[:5].tolist()
            raise DatasetError(
                f"{sample['pan_seg_file_name']}: segments {unknown} are not in segments_info"
            )
        label -= 1
        return label.astype(np.uint8) if label.max() < 256 else label

    def _instances(self, ids: np.ndarray, segments: list[dict[str, Any]]) -> Instances:
        masks, boxes, classes = [], [], []
        for segment in segments:
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
        return instances


def read_segment_ids(file_name: str) -> np.ndarray:
    """Read a panoptic PNG: (H, W) uint32, id = R + 256 G + 65536 B; 0 is void."""
    red, green, blue = np.moveaxis(read_label(file_name, colour=True).astype(np.uint32), 2, 0)
    return red | green << 8 | blue << 16
