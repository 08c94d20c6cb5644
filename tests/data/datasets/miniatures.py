"""Images and labels of six by eight pixels, and how a row should read them."""

from __future__ import annotations

from pathlib import Path

from seg_plugins.data import SemanticMapper
from seg_plugins.data.datasets.catalogue import load_dataset

import cv2
import numpy as np
from detectron2.data import MetadataCatalog

IMAGE = np.random.default_rng(0).integers(0, 255, (6, 8, 3)).astype(np.uint8)


def put(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


def put_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def label(*values: int) -> np.ndarray:
    """A 6x8 label whose columns hold the values in turn."""
    return np.tile(np.resize(np.array(values, np.uint8), 8), (6, 1))


def check(name: str, values: dict[int, str | None]) -> None:
    """The only record of a row has the classes `values` in its columns; None: ignored."""
    (record,) = load_dataset(name)
    metadata = MetadataCatalog.get(name)
    ids = metadata.sem_seg_loading_fn(record["sem_seg_file_name"])
    names = [metadata.stuff_classes[i] if i < len(metadata.stuff_classes) else None for i in ids[0]]
    assert names == [list(values.values())[i % len(values)] for i in range(8)]
    assert {int(i) for i in ids.ravel()} - set(range(len(metadata.stuff_classes))) <= {
        metadata.ignore_label
    }
    # The mapper reads the same as the evaluator.
    sample = SemanticMapper(is_train=True)(record)
    assert np.array_equal(sample["sem_seg"].numpy(), ids)
    assert sample["image"].shape == (3, 6, 8)
