"""The mapper for semantic segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable

from .augmentations import Augmentation, Content
from .build import build_augmentations, build_photometric
from .geometry import Geometry
from .label_encoding import LabelEncoding
from .photometric import Photometric
from .sample import check_size, generator, image_to_tensor, read_sample_image

__all__ = ["SemanticMapper"]

_IDS = LabelEncoding()


class SemanticMapper:
    """Read one sample of semantic segmentation and augment it.

    Args:
        is_train: read labels too.
        augmentations: geometry, in order.
        photometric: changes of colour, in order, after the geometry.
        image_format: "RGB", "BGR", "L", or "raw" for the stored channels and depth.
    """

    @configurable
    def __init__(
        self,
        *,
        is_train: bool,
        augmentations: Sequence[Augmentation] = (),
        photometric: Sequence[Photometric] = (),
        image_format: str = "BGR",
    ) -> None:
        self.is_train = is_train
        self.augmentations = tuple(augmentations)
        self.photometric = tuple(photometric)
        self.image_format = image_format

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {
            "is_train": is_train,
            "augmentations": build_augmentations(cfg, is_train),
            "photometric": build_photometric(cfg, is_train),
            "image_format": cfg.INPUT.FORMAT,
        }

    def __call__(
        self, dataset_dict: dict[str, Any], rng: np.random.Generator | None = None
    ) -> dict[str, Any]:
        """Map one dataset dict to a sample.

        Args:
            dataset_dict: Detectron2's format, with ``sem_seg_file_name``; it is not changed.
            rng: makes the sample a pure function of the arguments; None draws from NumPy's
                global state.

        Returns:
            The dict with ``image`` (C, H, W), values as stored, and, in training, ``sem_seg``
            (H, W) int64.

        Raises:
            DatasetError: an unreadable file, or image and label of different sizes.
        """
        rng = generator(rng)
        sample = dict(dataset_dict)
        image = read_sample_image(sample, self.image_format)
        label = None
        encoding = sample.pop("sem_seg_encoding", _IDS)
        if self.is_train:
            label = encoding(sample["sem_seg_file_name"])
            check_size(label, image, sample, "sem_seg_file_name")
        geometry = Geometry.identity(image.shape[:2])
        for augmentation in self.augmentations:
            geometry = augmentation(rng, geometry, Content(label))
        image = geometry.apply_image(image)
        for change in self.photometric:
            image = change(rng, image)
        sample["image"] = image_to_tensor(image)
        if label is not None:
            label = geometry.apply_label(label)
            sample["sem_seg"] = torch.from_numpy(label.astype(np.int64))
        return sample
