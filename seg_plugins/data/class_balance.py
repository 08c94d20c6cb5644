"""Class frequencies of a dataset, and the loss weights that follow from them."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ..io.files import write_atomically
from ..io.window_names import file_of
from .augmentations import class_counts
from .dataset import Dataset
from .datasets.class_table import load_class_table
from .datasets.root import user_cache_dir
from .errors import DatasetError

__all__ = ["SCHEMES", "class_weights", "count_pixels", "median_frequency"]

SCHEMES = ("median_frequency", "inverse", "published")


def class_weights(dataset_name: str, scheme: str) -> list[float]:
    """Loss weights of a semantic dataset's classes.

    Args:
        dataset_name: a registered dataset with semantic labels.
        scheme: "median_frequency" (Eigen and Fergus 2015; SegNet): the median of the classes'
            frequencies over the class's own, where a class's frequency is its share of the
            pixels of the images that show it. Pixels without a class count among the pixels of
            an image, and as one more class for the median, as in SegNet's released list.
            "inverse": the mean number of pixels of a class over the class's own.
            "published": the list that the dataset's authors released, if its class table has
            one. CamVid's comes within 12% of "median_frequency" on the training set but for
            SignSymbol: 9.64 released, about 3.85 counted.

    Returns:
        One weight per class; 1.0 for a class that never occurs.

    Raises:
        ValueError: an unknown scheme, or no published weights.
        DatasetError: a label that cannot be read or holds an id outside the classes.
    """
    if scheme == "published":
        return _published(dataset_name)
    if scheme not in SCHEMES:
        raise ValueError(f"unknown class weights '{scheme}'; known are {', '.join(SCHEMES)}")
    images = count_pixels(dataset_name)
    names = Dataset.get(dataset_name).stuff.names
    totals = images[:, :-1].sum(axis=0).tolist()
    empty = [name for name, shown in zip(names, totals, strict=True) if not shown]
    if len(empty) == len(names):
        raise DatasetError(f"dataset '{dataset_name}': no pixel of its labels has a class")
    if empty:
        logging.getLogger(__name__).warning(
            "%s: no pixel of %d classes, whose weight is 1: %s",
            dataset_name, len(empty), ", ".join(empty[:10]),
        )  # fmt: skip
    if scheme == "median_frequency":
        return median_frequency(images)
    counted = images.sum(axis=0)[:-1]
    with np.errstate(divide="ignore"):
        return _finite(counted[counted > 0].mean() / counted)


def median_frequency(images: np.ndarray) -> list[float]:
    """Weights by median frequency, see `class_weights`.

    Args:
        images: (N, K + 1) pixels of each image per class, the last column without a class.

    Returns:
        K weights.
    """
    pixels = images.sum(axis=0)
    shown_in = ((images > 0) * images.sum(axis=1, keepdims=True)).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        frequency = pixels / shown_in
        median = np.median(frequency[pixels > 0]) if pixels.any() else 1.0
        return _finite(median / frequency)[:-1]


def _finite(weights: np.ndarray) -> list[float]:
    """Weights with 1.0 for classes that never occur."""
    return [float(w) if np.isfinite(w) else 1.0 for w in weights]


def count_pixels(dataset_name: str) -> np.ndarray:
    """Count the pixels of each class; the result is kept in the user's cache folder.

    Returns:
        (N, K + 1) int64: for each image the pixels of the K classes and those without a class.

    Raises:
        DatasetError: no semantic labels, an unreadable one, or an id outside the classes.
    """
    dataset = Dataset.get(dataset_name)
    records, classes = dataset.records, len(dataset.stuff)
    if not records or "sem_seg_file_name" not in records[0] or not classes:
        raise DatasetError(f"dataset '{dataset_name}' has no semantic labels to count")
    return count_records(dataset_name, records, classes, dataset.ignore_label, dataset.read_label)


def count_records(
    name: str, records: list[dict[str, Any]], classes: int, ignore_label: int, read_label: Any
) -> np.ndarray:
    """The same of any records with semantic labels.

    Args:
        name: of what is counted, for the log and the cache.
        records: Detectron2's dicts.
        classes: their number, K.
        ignore_label: id of pixels without a class.
        read_label: reads the labels of records without ``sem_seg_encoding``.
    """
    cache = _cache_file(name, records, classes, ignore_label)
    if cache.is_file():
        try:
            return np.array(json.loads(cache.read_text()), np.int64).reshape(-1, classes + 1)
        except (OSError, ValueError, TypeError) as error:
            logging.getLogger(__name__).warning("%s is counted anew (%s)", cache, error)
    logging.getLogger(__name__).info("Counting the classes of %d labels of %s", len(records), name)

    def count(record: dict[str, Any]) -> np.ndarray:
        encoding = record.get("sem_seg_encoding") or read_label
        counts = class_counts(encoding(record["sem_seg_file_name"]))
        result = np.zeros(classes + 1, np.int64)
        known = min(classes, len(counts))
        result[:known] = counts[:known]
        if ignore_label < len(counts):
            result[classes] = counts[ignore_label]
        return result

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        images = np.array(list(pool.map(count, records)))
    _write(cache, images.tolist())
    return images


def _cache_file(
    dataset_name: str, records: list[dict[str, Any]], classes: int, ignore_label: int
) -> Path:
    """A file name that changes with any label file."""
    digest = hashlib.sha256(f"2 {classes} {ignore_label}".encode())
    for record in records:
        name, image = record["sem_seg_file_name"], record["file_name"]
        digest.update(f"{name} {_stamp(name)} {record.get('sem_seg_encoding')}".encode())
        if file_of(image) != image:  # whose pixels without data have no class
            digest.update(_stamp(image).encode())
    safe = "".join(c if c.isalnum() else "_" for c in dataset_name)[:80]
    return user_cache_dir() / "class_frequencies" / f"{safe}-{digest.hexdigest()[:16]}.json"


def _stamp(name: str) -> str:
    try:
        found = os.stat(file_of(name))
    except OSError as error:
        raise DatasetError(f"{name}: {error.strerror}") from None
    return f"{found.st_size} {found.st_mtime_ns}"


def _write(path: Path, content: list[list[int]]) -> None:
    """Write atomically; a cache that cannot be written is no error."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(content).encode()
        write_atomically(path, lambda file: file.write(text), durable=False)
    except OSError as error:
        logging.getLogger(__name__).info("Class counts are not cached: %s", error)


def _published(dataset_name: str) -> list[float]:
    for table in (dataset_name.rsplit("_", 1)[0], dataset_name):
        try:
            weights = load_class_table(table).published_weights
        except DatasetError:
            continue
        if weights:
            return list(weights)
    raise ValueError(
        f"no published class weights are known for '{dataset_name}'; use 'median_frequency'"
    )
