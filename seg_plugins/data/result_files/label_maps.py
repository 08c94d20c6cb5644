"""Label maps: folders of PNGs, and Detectron2's list of a run-length mask per class."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...io.masks import to_bitmask
from ..errors import DatasetError
from .detections import packed_mask
from .listed import ResultFile

__all__ = ["find_label_files", "label_map", "masks_by_image", "slice_of", "volume_places"]

logger = logging.getLogger(__name__)

#: Formats that keep ids as they are.
SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".npy")
#: Of labels of a whole volume.
VOLUMES = (".nii", ".nii.gz")


def find_label_files(folder: Path) -> list[Path]:
    """The label maps in a folder and those below it, in the order of their names.

    Other files are counted in a warning. Names that begin with a dot are passed over.
    """
    files = [f for f in sorted(folder.rglob("*")) if f.is_file() and not f.name.startswith(".")]
    found = [file for file in files if file.name.lower().endswith(SUFFIXES + VOLUMES)]
    if found and len(found) < len(files):
        other = next(file for file in files if file not in found)
        logger.warning(
            "%s: %d files are no label maps by their names (%s, ...) and are left out",
            folder, len(files) - len(found), other.name,
        )  # fmt: skip
    return found


def slice_of(file_name: str) -> tuple[str, int] | None:
    """The volume and the number of a slice called ``<volume>_<number>``; None: another name."""
    volume, underscore, number = Path(file_name).stem.rpartition("_")
    return (volume, int(number)) if underscore and number.isdecimal() else None


def volume_places(
    file: Path, slices: int, records: Sequence[Mapping[str, Any]], name: str
) -> list[int]:
    """The places of the records that are the slices of a volume's labels, in their order.

    Args:
        file: of the labels, called as the volume.
        slices: that it holds.
        records: of a dataset of slices.
        name: of the dataset.

    Raises:
        DatasetError: no slice of that volume, or another number of them.
    """
    volume = file.name.removesuffix(".gz").removesuffix(".nii")
    found = {}
    for place, record in enumerate(records):
        of_record = slice_of(record["file_name"])
        if of_record is not None and of_record[0] == volume:
            found[of_record[1]] = place
    if not found:
        raise DatasetError(
            f"{file}: no image of '{name}' is a slice of '{volume}', called {volume}_<number>"
        )
    if sorted(found) != list(range(slices)):
        raise DatasetError(
            f"{file}: {slices} slices, and '{name}' has {len(found)} of '{volume}', numbered "
            f"{min(found)} to {max(found)}"
        )
    return [found[number] for number in range(slices)]


def masks_by_image(file: ResultFile) -> dict[str, list[int]]:
    """The places of the masks of each file name, in the file's order.

    Raises:
        DatasetError: a field is missing or of the wrong type.
    """
    places: dict[str, list[int]] = {}
    for place, record in enumerate(file.records):
        name, category = record.get("file_name"), record.get("category_id")
        if not isinstance(name, str) or not name:
            raise file.fail(place, f"file_name should be text, not {name!r}")
        if not isinstance(category, int) or isinstance(category, bool):
            raise file.fail(place, f"category_id should be an integer, not {category!r}")
        places.setdefault(name, []).append(place)
    return places


def label_map(
    file: ResultFile, places: list[int], classes: Mapping[int, int], nothing: int
) -> np.ndarray:
    """(H, W) int32 class ids of one image, drawn from the masks of its classes.

    Args:
        file: Detectron2's list.
        places: of the masks.
        classes: category id in the file -> class id.
        nothing: the id where no mask is.

    Raises:
        DatasetError: an unknown category, masks that overlap or differ in size.
    """
    labels: np.ndarray | None = None
    for place in places:
        record = file.records[place]
        if record["category_id"] not in classes:
            raise file.fail(
                place,
                f"category_id {record['category_id']} is none of the {len(classes)} classes",
            )
        rle = packed_mask(file, place, record.get("segmentation"))
        size = tuple(rle["size"])
        if labels is None:
            labels = np.full(size, nothing, np.int32)
        if labels.shape != size:
            raise file.fail(place, f"its mask is {size}, others of the image are {labels.shape}")
        mask = to_bitmask(rle, *size)
        if (labels[mask] != nothing).any():
            raise file.fail(place, "its mask shares pixels with another one of the image")
        labels[mask] = classes[record["category_id"]]
    if labels is None:
        raise DatasetError(f"{file.path}: an image without a mask")
    return labels
