"""COCO's run-length masks: encoding, areas and overlaps without full-size bitmasks.

All of it runs on the CPU. Bitmasks of another device come in one copy, however many they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pycocotools.mask as coco_mask
import torch

from ..io.masks import encode_bitmasks, mask_area, to_bitmasks, to_run_lengths
from .segmentation_metrics import as_tensor, compiled


@dataclass(frozen=True)
class RunLengthMasks:
    """Masks of one image as COCO's compressed run-length strings, back to back.

    Attributes:
        height: Rows of the image.
        width: Columns of the image.
        offsets: (N + 1,) int64; string i is ``data[offsets[i]:offsets[i + 1]]``.
        data: (offsets[N],) uint8.
    """

    height: int
    width: int
    offsets: np.ndarray
    data: np.ndarray

    @classmethod
    def from_strings(
        cls, strings: Sequence[bytes | str], height: int, width: int
    ) -> RunLengthMasks:
        """From the ``counts`` of COCO's compressed RLEs."""
        encoded = [s.encode("ascii") if isinstance(s, str) else s for s in strings]
        offsets = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)), out=offsets[1:])
        return cls(height, width, offsets, np.frombuffer(b"".join(encoded), np.uint8))

    @classmethod
    def from_coco(
        cls, rles: Sequence[Mapping[str, Any]], height: int, width: int
    ) -> RunLengthMasks:
        """From COCO RLE dicts, compressed or as lists of counts.

        Raises:
            ValueError: an RLE whose ``size`` is not the image's.
        """
        sizes = [tuple(rle["size"]) for rle in rles]
        if sizes.count((height, width)) != len(sizes):
            index = next(i for i, size in enumerate(sizes) if size != (height, width))
            raise ValueError(
                f"run-length mask {index} is {sizes[index][0]}x{sizes[index][1]}, its image "
                f"{height}x{width} (height x width)"
            )
        strings = [rle["counts"] for rle in rles]
        if not set(map(type, strings)) <= {bytes, str}:
            strings = [
                rle["counts"]
                if isinstance(rle["counts"], (bytes, str))
                else to_run_lengths(rle, height, width)["counts"]
                for rle in rles
            ]
        return cls.from_strings(strings, height, width)

    @classmethod
    def from_bitmasks(cls, masks: np.ndarray | torch.Tensor) -> RunLengthMasks:
        """From (N, H, W) bool or uint8 masks, non-zero inside; byte-identical to pycocotools.

        Raises:
            ValueError: masks of another shape or type.
        """
        masks = masks.cpu() if isinstance(masks, torch.Tensor) else as_tensor(masks)
        if masks.ndim != 3 or masks.dtype not in (torch.bool, torch.uint8):
            raise ValueError(
                f"masks must be (N, H, W) bool or uint8, got {tuple(masks.shape)} {masks.dtype}"
            )
        _, height, width = masks.shape
        if compiled():
            offsets, data = torch.ops.seg_plugins.encode_masks(masks)
            return cls(height, width, offsets.numpy(), data.numpy())
        rles = encode_bitmasks(masks.numpy())
        return cls.from_strings([rle["counts"] for rle in rles], height, width)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: Any) -> RunLengthMasks:
        """The masks at an index array, boolean array or slice."""
        chosen = np.arange(len(self))[_as_index(index)].reshape(-1)
        return self.from_strings([self.string(i) for i in chosen], self.height, self.width)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image."""
        return self.height, self.width

    def string(self, index: int) -> bytes:
        """The compressed counts of one mask."""
        return self.data[self.offsets[index] : self.offsets[index + 1]].tobytes()

    def to_coco(self) -> list[dict[str, Any]]:
        """COCO RLE dicts that JSON can hold: ``{"size": [h, w], "counts": str}``."""
        size = [self.height, self.width]
        return [{"size": size, "counts": self.string(i).decode("ascii")} for i in range(len(self))]

    def to_bitmasks(self) -> np.ndarray:
        """(N, H, W) uint8 masks, 1 inside."""
        return to_bitmasks(self.to_coco(), self.height, self.width)

    def __iter__(self) -> Iterator[np.ndarray]:
        """The bitmasks one by one, (H, W) uint8, as Detectron2's COCOEvaluator asks for them."""
        for index in range(len(self)):
            yield self[[index]].to_bitmasks()[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """``numpy.asarray(masks)``: the bitmasks, as Detectron2's Visualizer asks for them."""
        masks = self.to_bitmasks()
        return masks if dtype is None else masks.astype(dtype)

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Offsets and data as tensors."""
        return as_tensor(self.offsets), as_tensor(self.data)


def _as_index(index: Any) -> Any:
    return index.cpu().numpy() if isinstance(index, torch.Tensor) else index


def encode_label_map(labels: np.ndarray) -> dict[int, bytes]:
    """COCO's compressed counts of every label present, in one pass over the map.

    Args:
        labels: (H, W) uint8 or uint16.

    Returns:
        The counts by label, ascending; byte-identical to ``pycocotools.mask.encode``.

    Raises:
        ValueError: a map of another shape or type.
    """
    if labels.ndim != 2 or labels.dtype not in (np.uint8, np.uint16):
        raise ValueError(
            f"labels must be (H, W) uint8 or uint16, got {labels.shape} {labels.dtype}"
        )
    height, width = labels.shape
    if compiled():
        values, offsets, data = torch.ops.seg_plugins.encode_label_map(as_tensor(labels))
        masks = RunLengthMasks(height, width, offsets.numpy(), data.numpy())
        return {value: masks.string(i) for i, value in enumerate(values.tolist())}
    values = np.unique(labels)
    rles = encode_bitmasks(labels == values[:, None, None])
    return {int(value): rle["counts"] for value, rle in zip(values, rles, strict=True)}


def mask_areas(masks: RunLengthMasks) -> np.ndarray:
    """(N,) int64 pixels of each mask.

    Raises:
        ValueError: (compiled) run lengths that do not cover the image, or are no run lengths.
    """
    if compiled():
        areas = torch.ops.seg_plugins.mask_areas(*masks.tensors(), masks.height, masks.width)
        return areas.numpy()
    # One by one: pycocotools 2.0.11 takes at most 255 masks at once with NumPy 2.
    return np.array([mask_area(rle) for rle in masks.to_coco()], np.int64)


def boundary_iou(
    detections: RunLengthMasks,
    truths: RunLengthMasks,
    *,
    detection_groups: np.ndarray,
    truth_groups: np.ndarray,
    crowd: np.ndarray,
    radius: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Overlap by which Boundary AP matches: the smaller of the IoU of masks and of their bands.

    A band is the mask without its erosion by a square of side 2 * radius + 1, where what lies
    outside the image counts as outside the mask (Cheng et al., Boundary IoU, 2021).

    Args:
        detections: D masks.
        truths: G masks of the same image.
        detection_groups: (D,) int64, e.g. the category.
        truth_groups: (G,) int64; masks of two groups overlap by 0.
        crowd: (G,) bool; with a crowd the union is the detection alone, as in COCO.
        radius: width of the bands in pixels.

    Returns:
        overlaps: (D, G) float64.
        detection_areas: (D,) int64 pixels.

    Raises:
        ValueError: masks of images of different sizes, or a radius below 1.
    """
    if detections.size != truths.size:
        raise ValueError(
            f"detections are of an image of {detections.size}, truths of {truths.size} "
            "(height, width)"
        )
    if radius < 1:
        raise ValueError(f"radius must be at least 1, not {radius}")
    if compiled():
        found = torch.ops.seg_plugins.boundary_iou(
            *detections.tensors(),
            *truths.tensors(),
            as_tensor(detection_groups),
            as_tensor(truth_groups),
            as_tensor(crowd),
            *detections.size,
            radius,
        )
        overlaps, areas = (tensor.numpy() for tensor in found)
        return overlaps, areas
    overlaps = np.zeros((len(detections), len(truths)))
    if overlaps.size:
        whole = mask_iou(detections, truths, crowd)
        bands = mask_iou(_bands(detections, radius), _bands(truths, radius), crowd)
        same_group = detection_groups[:, None] == truth_groups[None]
        overlaps = np.where(same_group, np.minimum(whole, bands), 0.0)
    return overlaps, mask_areas(detections)


def mask_iou(
    masks: RunLengthMasks, others: RunLengthMasks, crowd: np.ndarray | None = None
) -> np.ndarray:
    """Intersection over union of masks of one image.

    Args:
        masks: N masks.
        others: M masks, at least one.
        crowd: (M,) bool; with a crowd the union is the mask alone, as in COCO. Default: none is.

    Returns:
        (N, M) float64.
    """
    crowds = [0] * len(others) if crowd is None else crowd.astype(np.uint8).tolist()
    return np.asarray(coco_mask.iou(masks.to_coco(), others.to_coco(), crowds))


def _bands(masks: RunLengthMasks, radius: int) -> RunLengthMasks:
    square = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
    full = masks.to_bitmasks()
    for mask in full if full.size else ():
        inner = cv2.erode(mask, square, borderType=cv2.BORDER_CONSTANT, borderValue=0)
        mask[inner != 0] = 0
    return RunLengthMasks.from_bitmasks(full)
