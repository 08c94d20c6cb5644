"""The views of an image that test-time augmentation shows to a system: sizes and mirror images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from detectron2.data.transforms import (
    HFlipTransform,
    NoOpTransform,
    ResizeShortestEdge,
    ResizeTransform,
    Transform,
    TransformList,
)
from torch import Tensor

# Of 8 bits and so many channels, images are resized by Pillow, as Detectron2 does.
_PILLOW_CHANNELS = (1, 3)


@dataclass(frozen=True)
class View:
    """One version of an image.

    Attributes:
        image: (C, h, w) in raw range.
        mirrored: left and right are exchanged.
        transforms: from the pixels of the wanted output to those of this view.
    """

    image: Tensor
    mirrored: bool
    transforms: TransformList

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.image.shape[-2], self.image.shape[-1]

    @property
    def sample(self) -> dict[str, Any]:
        """The view as a system takes it."""
        return {"image": self.image}

    def boxes_to_output(self, boxes: Tensor) -> Tensor:
        """(N, 4) x0, y0, x1, y1 of this view in the pixels of the output."""
        return _mapped(self.transforms.inverse(), boxes)

    def boxes_from_output(self, boxes: Tensor) -> Tensor:
        """(N, 4) boxes of the output in the pixels of this view."""
        return _mapped(self.transforms, boxes)

    def upright(self, maps: Tensor) -> Tensor:
        """Maps (..., w) of this view, mirrored back where it is a mirror image."""
        return maps.flip(-1) if self.mirrored else maps


class Views:
    """The views of one image, each made when it is its turn: no two need be there at once.

    They are those of Detectron2's ``DatasetMapperTTA``, in its order: of each size the image, then
    its mirror image. Images that Pillow cannot hold as they are (floating point; 8 bits with other
    than 1 or 3 channels) are resized with a low-pass as well, where Detectron2 uses none, or takes
    the fourth channel for transparency.

    Args:
        sample: ``image`` (C, H, W) in raw range; ``height`` and ``width`` of the wanted output
            (default: the image's).
        min_sizes: shorter side of the views; 0 is the image as it comes.
        max_size: longest side of a view that is resized.
        flip: a mirror image of each, too.
        overlap_threshold: IoU above which two views are taken to have found the same object.
        detections: most instances of an image.
    """

    def __init__(
        self,
        sample: dict[str, Any],
        min_sizes: Sequence[int],
        max_size: int,
        *,
        flip: bool,
        overlap_threshold: float = 0.5,
        detections: int = 100,
    ) -> None:
        self.image: Tensor = sample["image"]
        rows, columns = self.image.shape[-2:]
        self.height: int = sample.get("height", rows)
        self.width: int = sample.get("width", columns)
        self.min_sizes, self.max_size, self.flip = tuple(min_sizes), max_size, flip
        self.overlap_threshold, self.detections = overlap_threshold, detections

    def __len__(self) -> int:
        return len(self.min_sizes) * (2 if self.flip else 1)

    def __iter__(self) -> Iterator[View]:
        rows, columns = self.image.shape[-2:]
        to_image: Transform = ResizeTransform(self.height, self.width, rows, columns)
        if (self.height, self.width) == (rows, columns):
            to_image = NoOpTransform()
        for min_size in self.min_sizes:
            to_view: Transform = NoOpTransform()
            if min_size:
                size = ResizeShortestEdge.get_output_shape(rows, columns, min_size, self.max_size)
                to_view = ResizeTransform(rows, columns, *size)
            image = _resized(self.image, to_view)
            yield View(image, False, TransformList([to_image, to_view]))
            if self.flip:
                mirror = HFlipTransform(image.shape[-1])
                transforms = TransformList([to_image, to_view, mirror])
                yield View(image.flip(-1), True, transforms)


def _resized(image: Tensor, transform: Transform) -> Tensor:
    """A (C, H, W) image resized."""
    if isinstance(transform, NoOpTransform):
        return image
    if image.dtype == torch.uint8 and len(image) in _PILLOW_CHANNELS:
        pixels = np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy())
        resized = torch.from_numpy(np.array(transform.apply_image(pixels)))
        return resized.permute(2, 0, 1).contiguous().to(image.device)
    size = (transform.new_h, transform.new_w)
    image = image.float()[None]
    return F.interpolate(image, size, mode="bilinear", align_corners=False, antialias=True)[0]


def _mapped(transforms: TransformList, boxes: Tensor) -> Tensor:
    mapped = transforms.apply_box(boxes.cpu().numpy())
    return torch.from_numpy(mapped).to(boxes).reshape(-1, 4)
