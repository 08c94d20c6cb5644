"""Reading ground-truth label maps as stored: no resampling, no conversion of the ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from detectron2.utils.file_io import PathManager
from PIL import Image

from .errors import EvaluationError


class LabelSource:
    """The label map of each record of a dataset.

    A dataset whose labels are not index images (RGB colours, arrays, volumes) names a function
    in its metadata, ``read_sem_seg(record) -> (H, W) integer array``; it then reads them all.

    Args:
        records: the dataset's dicts.
        metadata: the dataset's metadata.
    """

    def __init__(self, records: Sequence[Mapping[str, Any]], metadata: Any) -> None:
        self._records = records
        self._reader = metadata.get("read_sem_seg", None)

    def __len__(self) -> int:
        return len(self._records)

    def read(self, position: int) -> np.ndarray:
        """The (H, W) integer labels of the record at `position`."""
        record = self._records[position]
        if self._reader is not None:
            return np.asarray(self._reader(record))
        if "sem_seg_file_name" not in record:
            raise EvaluationError("its record has no sem_seg_file_name.")
        return read_label_image(record["sem_seg_file_name"])


def read_label_image(path: str) -> np.ndarray:
    """Label ids of an 8-bit, 16-bit or palette image, as stored.

    Returns:
        (H, W) array of the stored integer type (uint8, uint16 or int32).

    Raises:
        EvaluationError: the image has several channels or is not made of integers.
    """
    with PathManager.open(path, "rb") as file, Image.open(file) as image:
        labels = np.asarray(image)
    if labels.dtype == bool:
        labels = labels.astype(np.uint8)
    if labels.ndim != 2 or labels.dtype.kind not in "iu":
        raise EvaluationError(
            f"{path}: a label image has one integer channel; this one is {labels.dtype} of shape "
            f"{labels.shape}. Convert colours to class indices first."
        )
    return labels
