"""Windows of rasters drawn so that every class is as frequent as the others."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..config import ConfigError
from ..io.window_names import file_of
from .class_balance import count_records
from .errors import DatasetError

__all__ = ["balance_windows", "is_balanced"]

logger = logging.getLogger(__name__)


def is_balanced(record: Mapping[str, Any]) -> bool:
    """Whether a record stands for windows that are drawn by class."""
    training = record.get("training_window")
    return training is not None and training.class_balanced


def balance_windows(records: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Balance the classes that windows are drawn for.

    A class is drawn evenly from those that occur, then one of the tiles that show it, then one of
    its pixels in that tile; the window holds this pixel. In the form of `SampleOrder`: a tile's
    factor is the sum of ``1 / n_c`` over its classes ``c``, with ``n_c`` tiles showing the class,
    and given the tile, a class has its share of that sum.

    Args:
        records: all of them with ``training_window``; the labels are read once, and the counts
            kept in the user's cache folder.

    Returns:
        The records, which know the chances of the classes, and (len(records),) repeat factors of
        mean 1, 0 for tiles without a class.

    Raises:
        ConfigError: some records are not balanced windows.
        DatasetError: an unreadable label, or no class at all.
    """
    if not all(map(is_balanced, records)):
        raise ConfigError(
            "class_balanced windows cannot be mixed with other training samples: train on one "
            "description, or set class_balanced false in it"
        )
    encoding = records[0]["sem_seg_encoding"]
    name = Path(file_of(records[0]["file_name"])).stem
    counts = count_records(name, records, encoding.classes, encoding.ignore_label, None)
    shows = counts[:, :-1] > 0
    tiles = shows.sum(axis=0)
    if not tiles.any():
        raise DatasetError(f"{records[0]['sem_seg_file_name']}: no pixel to train on has a class")
    with np.errstate(divide="ignore"):
        chances = np.where(tiles > 0, 1 / tiles, 0.0)
    factors = shows @ chances
    factors *= len(records) / factors.sum()
    logger.info(
        "Windows are balanced by class: %d classes are as frequent as each other; %d of %d tiles "
        "show none and are not drawn", np.count_nonzero(tiles), (~shows.any(axis=1)).sum(),
        len(records),
    )  # fmt: skip
    known = tuple(map(float, chances))
    balanced = [
        {**r, "training_window": replace(r["training_window"], class_chances=known)}
        for r in records
    ]
    return balanced, factors
