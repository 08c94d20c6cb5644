"""Reading ground truth as stored: no resampling, no conversion of the ids."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seg_plugins.ops.png import decode_png

import numpy as np
from detectron2.utils.file_io import PathManager
from PIL import Image

from ..data import Dataset
from .errors import EvaluationError


class LabelSource:
    """The label map of each record of a dataset.

    Labels that are not index images (colours, arrays, volumes) are read by a function
    ``file_name -> (H, W) integers``: the record's ``sem_seg_encoding`` or, for all records, the
    metadata's ``sem_seg_loading_fn``; the mappers read with the same one.

    Args:
        dataset: with semantic labels.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._records = dataset.records
        self._read = dataset.metadata.get("sem_seg_loading_fn", read_label_image)

    def __len__(self) -> int:
        return len(self._records)

    def record(self, position: int) -> Mapping[str, Any]:
        """The dict of the image at `position`."""
        return self._records[position]

    def read(self, position: int) -> np.ndarray:
        """The (H, W) integer labels of the record at `position`."""
        record = self._records[position]
        if "sem_seg_file_name" not in record:
            raise EvaluationError("its record has no sem_seg_file_name.")
        read = record.get("sem_seg_encoding", self._read)
        return np.asarray(read(record["sem_seg_file_name"]))


def read_pixels(path: str | Path) -> np.ndarray:
    """The pixels of an image as its file holds them: ids of a palette, channels of a colour image.

    Raises:
        OSError: the file cannot be read or is no image.
    """
    with PathManager.open(str(path), "rb") as file:
        content = file.read()
    pixels = decode_png(content)
    if pixels is not None:
        return pixels
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image)


def read_label_image(path: str) -> np.ndarray:
    """Label ids of an 8-bit, 16-bit or palette image, as stored.

    Returns:
        (H, W) array of the stored integer type (uint8, uint16 or int32).

    Raises:
        EvaluationError: the image has several channels or is not made of integers.
    """
    labels = read_pixels(path)
    if labels.dtype == bool:
        labels = labels.astype(np.uint8)
    if labels.ndim != 2 or labels.dtype.kind not in "iu":
        raise EvaluationError(
            f"{path}: a label image has one integer channel; this one is {labels.dtype} of shape "
            f"{labels.shape}. Convert colours to class indices first."
        )
    return labels
