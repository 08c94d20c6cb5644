"""The mapper for semantic segmentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable

from .augmentations import Augmentation, Content
from .border_weights import border_weights
from .build import build_augmentations, build_border, build_cache, build_elastic, build_photometric
from .decoded_cache import DecodedCache
from .elastic import ElasticDeformation
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
        elastic: deformation after the other geometry.
        border: arguments of `border_weights`; None computes no weights.
        cache: of decoded images and labels.
    """

    @configurable
    def __init__(
        self,
        *,
        is_train: bool,
        augmentations: Sequence[Augmentation] = (),
        photometric: Sequence[Photometric] = (),
        image_format: str = "BGR",
        elastic: ElasticDeformation | None = None,
        border: Mapping[str, Any] | None = None,
        cache: DecodedCache | None = None,
    ) -> None:
        self.is_train = is_train
        self.augmentations = tuple(augmentations)
        self.photometric = tuple(photometric)
        self.image_format = image_format
        self.elastic = elastic
        self.border = border
        self.cache = cache

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {
            "is_train": is_train,
            "augmentations": build_augmentations(cfg, is_train),
            "photometric": build_photometric(cfg, is_train),
            "image_format": cfg.INPUT.FORMAT,
            "elastic": build_elastic(cfg, is_train),
            "border": build_border(cfg, is_train),
            "cache": build_cache(cfg, is_train),
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
            (H, W) int64 and, if asked for, ``sem_seg_weights`` (H, W) float32.

        Raises:
            DatasetError: an unreadable file, or image and label of different sizes.
        """
        rng = generator(rng)
        sample = dict(dataset_dict)
        image = read_sample_image(sample, self.image_format, self.cache)
        label = None
        encoding = sample.pop("sem_seg_encoding", _IDS)
        if self.is_train:
            label = self._read_label(sample["sem_seg_file_name"], encoding)
            check_size(label, image, sample, "sem_seg_file_name")
        geometry = Geometry.identity(image.shape[:2])
        for augmentation in self.augmentations:
            geometry = augmentation(rng, geometry, Content(label))
        image = geometry.apply_image(image)
        if label is not None:
            label = geometry.apply_label(label)
        if self.elastic is not None:
            moves = self.elastic.draw(rng, *image.shape[:2])
            image = self.elastic.apply_image(image, moves)
            if label is not None:
                label = self.elastic.apply_label(label, moves)
        for change in self.photometric:
            image = change(rng, image)
        sample["image"] = image_to_tensor(image)
        if label is not None:
            if self.border is not None:
                sample["sem_seg_weights"] = torch.from_numpy(border_weights(label, **self.border))
            sample["sem_seg"] = torch.from_numpy(label.astype(np.int64))
        return sample

    def _read_label(self, file_name: str, encoding: LabelEncoding) -> np.ndarray:
        if self.cache is None:
            return encoding(file_name)
        return self.cache.get(file_name, repr(encoding), lambda: encoding(file_name))
