"""Instances that are stored as mask images."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.structures import BoxMode

from ...io.images import read_image, read_label
from ...io.masks import encode_bitmasks, mask_box
from ..errors import DatasetError, Report, raise_error
from .files import inside, missing, read_lines
from .pairing import PICTURES, Side, ending_of, find_pairs

__all__ = ["read_bitmasks", "read_mask_folders", "read_object_masks"]

# Flags in the G channel of BDD100K's bitmasks.
_BDD_CROWD, _BDD_IGNORE = 2, 1


def read_mask_folders(
    folder: Path, part: tuple[float, float], report: Report = raise_error
) -> list[dict[str, Any]]:
    """Read ``ID/images/*`` with one binary mask per instance in ``ID/masks/*``.

    Args:
        folder: the folder of the image folders.
        part: first and last image as fractions, in an order fixed by a seed.
        report: called with the error of each image that is wrong.

    Raises:
        DatasetError: no images, an unreadable or empty mask, or one of another size.
    """
    names = sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
    if not names:
        raise missing(folder, "no folders of images")
    order = np.random.default_rng(0).permutation(len(names))
    first, last = (round(fraction * len(names)) for fraction in part)
    chosen = [folder / names[i] for i in sorted(order[first:last])]
    if not chosen:
        raise missing(folder, f"none of {len(names)} images falls into this part of the split")
    return _read_all(_read_mask_folder, chosen, report)


def _read_all(
    read: Callable[[Path], dict[str, Any]], paths: list[Path], report: Report
) -> list[dict[str, Any]]:
    """Read in parallel; what cannot be read is reported and left out."""

    def attempt(path: Path) -> dict[str, Any] | DatasetError:
        try:
            return read(path)
        except DatasetError as error:
            return error

    with ThreadPoolExecutor() as pool:
        results = list(pool.map(attempt, paths))
    records = []
    for number, result in enumerate(results, 1):
        if isinstance(result, DatasetError):
            report(result)
        else:
            records.append({**result, "image_id": number})  # COCO's files have numbers
    return records


def _read_mask_folder(folder: Path) -> dict[str, Any]:
    images = _pictures(folder / "images")
    if len(images) != 1:
        raise DatasetError(f"{folder / 'images'}: expected one image, found {len(images)}")
    if not (folder / "masks").is_dir():
        raise DatasetError(f"{folder / 'masks'}: no such folder; an empty one means no instance")
    annotations, size = [], None
    for path in _pictures(folder / "masks"):
        mask = read_label(str(path)) > 0
        if size is not None and mask.shape != size:
            raise DatasetError(f"{path}: size {mask.shape}, its neighbours have {size}")
        size = mask.shape
        if not mask.any():
            raise DatasetError(f"{path}: the mask is empty")
        annotations.append(mask_annotation(mask, 0))
    if size is None:
        size = read_image(str(images[0])).shape[:2]
    return {
        "file_name": str(images[0]),
        "height": size[0],
        "width": size[1],
        "annotations": annotations,
    }


def read_object_masks(
    folder: Path, stems: Path, report: Report = raise_error
) -> list[dict[str, Any]]:
    """Read ``STEM.image.png`` with one mask per object in ``STEM.mask.N.png`` beside it.

    In the masks of INRIA's Graz-02 red marks what is seen of the object and green what is hidden
    behind others. The instance is what is seen, as in COCO; an object of which nothing is seen
    is left out.

    Args:
        folder: holds images and masks.
        stems: the list of stems of the split.
        report: called with the error of each image that is wrong.

    Raises:
        DatasetError: a missing or unreadable file, or a mask of another size than the image.
    """

    def read(path: Path) -> dict[str, Any]:
        height, width = read_image(str(path)).shape[:2]
        annotations = []
        for mask_path in sorted(path.parent.glob(path.name.replace(".image.png", ".mask.*.png"))):
            mask = read_label(str(mask_path), color=True)[:, :, 0] > 0
            if mask.shape != (height, width):
                raise DatasetError(f"{mask_path}: size {mask.shape}, its image {(height, width)}")
            if mask.any():
                annotations.append(mask_annotation(mask, 0))
        return {
            "file_name": str(path),
            "height": height,
            "width": width,
            "annotations": annotations,
        }

    paths = [folder / f"{inside(stem)}.image.png" for stem in read_lines(stems)]
    return _read_all(read, paths, report)


def read_bitmasks(
    images: Path, bitmasks: Path, categories: dict[int, int], report: Report = raise_error
) -> list[dict[str, Any]]:
    """Read BDD100K's instance bitmasks.

    The channels are R: category, G: flags (crowd 2, ignore 1), B and A: instance number.

    Args:
        images: folder of the JPEGs.
        bitmasks: folder of the PNGs, with the same stems.
        categories: category id -> contiguous id.
        report: called with the error of each image that is wrong.

    Raises:
        DatasetError: a missing or wrong file, or an unknown category.
    """
    sides = Side(images, ".jpg", "images"), Side(bitmasks, ".png", "bitmasks")
    pairs = {mask: image for image, mask in find_pairs(*sides, report)}

    def read(path: Path) -> dict[str, Any]:
        channels = read_image(str(path), "raw")
        if channels.ndim != 3 or channels.shape[2] != 4:
            raise DatasetError(f"{path}: bitmasks have 4 channels, this has {channels.shape[2:]}")
        packed = channels.astype(np.uint32) @ np.array([1 << 24, 1 << 16, 1 << 8, 1], np.uint32)
        annotations = []
        for value in np.unique(packed):
            category, flags = int(value >> 24), int(value >> 16 & 255)
            if category == 0 or flags & _BDD_IGNORE:
                continue
            if category not in categories:
                raise DatasetError(f"{path}: category {category} is unknown")
            annotation = mask_annotation(packed == value, categories[category])
            annotation["iscrowd"] = int(bool(flags & _BDD_CROWD))
            annotations.append(annotation)
        return {
            "file_name": str(pairs[path]),
            "height": channels.shape[0],
            "width": channels.shape[1],
            "annotations": annotations,
        }

    return _read_all(read, list(pairs), report)


def mask_annotation(mask: np.ndarray, category_id: int) -> dict[str, Any]:
    """Detectron2's annotation of one instance mask, (H, W) bool, as compressed run lengths."""
    (rle,) = encode_bitmasks(mask[None])
    return {
        "bbox": [float(side) for side in mask_box(rle)],
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": category_id,
        "iscrowd": 0,
        "segmentation": rle,
    }


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if ending_of(p.name, PICTURES))
