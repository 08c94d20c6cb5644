"""The mapper for semantic segmentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from detectron2.config import CfgNode, configurable

from .augmentation_builder import build_border
from .augmentations import Content
from .elastic import Warp
from .image_mapper import ImageMapper, label_to_tensor
from .weight_map import border_weights

__all__ = ["SemanticMapper"]


class SemanticMapper(ImageMapper):
    """Read one sample of semantic segmentation and augment it.

    From a dict with ``sem_seg_file_name``, in training, ``sem_seg`` (H, W) int64 and, if asked
    for, ``sem_seg_weights`` (H, W) float32.

    Args:
        border: arguments of `border_weights`; None computes no weights.
        **shared: see `ImageMapper`.
    """

    combines_by: ClassVar[tuple[str, ...]] = ("MOSAIC",)

    @configurable
    def __init__(self, *, border: Mapping[str, Any] | None = None, **shared: Any) -> None:
        super().__init__(**shared)
        self.border = border

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """Arguments of the constructor."""
        return super().from_config(cfg, is_train) | {"border": build_border(cfg, is_train)}

    def read(self, sample: dict[str, Any], size: tuple[int, int]) -> Content:
        """Read the label."""
        return Content(label=self.read_label(sample, size))

    def targets(self, content: Content, warp: Warp) -> dict[str, Any]:
        """The label and its weights."""
        label = warp.apply_label(content.label)
        found = {"sem_seg": label_to_tensor(label)}
        if self.border is not None:
            found["sem_seg_weights"] = torch.from_numpy(border_weights(label, **self.border))
        return found
