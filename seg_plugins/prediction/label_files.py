"""Masks and object numbers of an image as PNG or TIFF."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..io.label_tiff import LabelTiff
from .image_result import ImageResult
from .labels import Labels
from .mask_values import binary, mask_values
from .objects import object_map, object_regions
from .regions import Region

# Outputs with a number for each pixel.
LABEL_KINDS = ("mask", "objects")
# What OutputOptions.label_files may be.
FORMATS = ("png", "tif")


def label_array(
    prediction: ImageResult, kind: str, values: str, regions: list[Region] | None = None
) -> np.ndarray:
    """(H, W) uint8 or uint16 of a kind of label; `regions`: the objects where they are known."""
    if kind == "objects":
        found = object_regions(prediction) if regions is None else regions
        return object_map(found, prediction.image.shape[0], prediction.image.shape[1])
    ids = prediction.id_mask()
    if prediction.semantic is None:
        return binary(ids, values)
    return mask_values(prediction.labels, values)(ids)


def label_nothing(kind: str, labels: Labels, values: str) -> int:
    """The value of pixels of no class or object."""
    return mask_values(labels, values).nothing if kind == "mask" and labels.stuff else 0


def label_colors(labels: Labels, values: str) -> dict[int, tuple[int, int, int]]:
    """(R, G, B) of the values of a mask of classes."""
    of_class = mask_values(labels, values).of_class.tolist()
    return {value: label.color for value, label in zip(of_class, labels.stuff, strict=True)}


@contextlib.contextmanager
def tiff_of(
    path: Path, like: Path | None, kind: str, labels: Labels, values: str, pages: int = 1
) -> Iterator[LabelTiff]:
    """A label file in TIFF, with resolution and place of the image.

    Masks of classes have the classes' colours, and declare the ignore label as no data.
    """
    of_classes = kind == "mask" and bool(labels.stuff)
    with LabelTiff.open(
        path,
        like,
        pages=pages,
        colors=label_colors(labels, values) if of_classes else None,
        nodata=mask_values(labels, values).nodata if of_classes else None,
    ) as file:
        yield file
