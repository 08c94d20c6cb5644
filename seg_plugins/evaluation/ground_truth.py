"""Reading ground truth as stored: no resampling, no conversion of the ids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..data import Dataset
from ..io.images import read_label
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
        self._read = dataset.metadata.get("sem_seg_loading_fn", read_label)

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
