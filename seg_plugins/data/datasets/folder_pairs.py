"""``folder:IMAGES,MASKS`` in DATASETS.TRAIN and TEST: two folders as a dataset, with no file."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from ..errors import DatasetError, Report, raise_error
from ..image_io import read_label
from .catalogue import register_row
from .class_table import ClassTable, parse_class_table
from .layouts import semantic_record
from .row import Row

__all__ = ["FolderPairs", "apply_folder_datasets", "count_classes", "register_folder_dataset"]

PREFIX = "folder:"
_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".npy")


@dataclass(frozen=True)
class FolderPairs:
    """A folder of images and one of masks: those with the same name but for the suffix belong
    together, in subfolders too.

    Where no two names agree, an ending that all names of a folder share is left out, as in
    ``00001_img.jpg`` and ``00001_gt.png``.

    Attributes:
        images, masks: below the dataset's folder.
    """

    images: str
    masks: str

    def records(
        self, folder: Path, table: ClassTable, report: Report = raise_error
    ) -> list[dict[str, Any]]:
        """One dict per image; images and masks without a partner are reported."""
        images = _by_stem(folder / self.images, report)
        masks = _by_stem(folder / self.masks, report)
        if not images.keys() & masks.keys():
            images, masks = _without_ending(images), _without_ending(masks)
        for stem in sorted(images.keys() ^ masks.keys()):
            lone, other = (images, self.masks) if stem in images else (masks, self.images)
            report(DatasetError(f"{lone[stem]}: no partner '{stem}' in {folder / other}"))
        return [
            semantic_record(images[stem], masks[stem])
            for stem in sorted(images.keys() & masks.keys())
        ]

    def paths(self, folder: Path) -> dict[str, str]:
        """The folders, named as Detectron2 names them."""
        return {"image_root": str(folder / self.images), "sem_seg_root": str(folder / self.masks)}


def apply_folder_datasets(cfg: CfgNode) -> None:
    """Register every ``folder:IMAGES,MASKS`` in DATASETS.TRAIN and TEST.

    Two folders tell no class names: there are ``MODEL.SEM_SEG_HEAD.NUM_CLASSES`` of them, called
    ``class_0``, ``class_1``, ... The masks hold their ids, which are checked when they are read,
    and ``IGNORE_VALUE``.

    Raises:
        DatasetError: a spelling that names no two folders.
    """
    head = cfg.MODEL.SEM_SEG_HEAD
    for name in dict.fromkeys((*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)):
        if name.startswith(PREFIX):
            # One logit is background and one class.
            count = max(head.NUM_CLASSES, 2)
            register_folder_dataset(name, count, head.IGNORE_VALUE)
            logging.getLogger(__name__).info(
                "%s has the %d classes of MODEL.SEM_SEG_HEAD.NUM_CLASSES", name, count
            )


def register_folder_dataset(name: str, num_classes: int, ignore_label: int = 255) -> None:
    """Register ``folder:IMAGES,MASKS``, paths relative to the working folder, under this name.

    Raises:
        DatasetError: a spelling that names no two folders.
    """
    folders = _folders(name)
    table = parse_class_table(
        {
            "classes": [{"name": f"class_{i}"} for i in range(num_classes)],
            "ignore_label": ignore_label,
            "source": name,
        },
        name,
    )
    if name in DatasetCatalog.list():
        # Another number of classes, e.g. in a notebook.
        DatasetCatalog.pop(name)
        MetadataCatalog.pop(name)
    layout = FolderPairs(*map(str, folders))
    register_row(Row(name, "semantic", "", str(folders[0]), layout), table)


def _folders(name: str) -> tuple[Path, Path]:
    """The two folders that a name spells."""
    images, comma, masks = (part.strip() for part in name.removeprefix(PREFIX).partition(","))
    if not (name.startswith(PREFIX) and comma and images and masks) or "," in masks:
        raise DatasetError(
            f"'{name}': expected '{PREFIX}path/to/images,path/to/masks'; for paths with commas and "
            "anything else use DATASETS.CUSTOM (datasets/custom.example.yaml)"
        )
    folders = [Path(part).expanduser().resolve() for part in (images, masks)]
    if folders[0] == folders[1]:
        raise DatasetError(f"'{name}': images and masks should lie in different folders")
    for folder in folders:
        if not folder.is_dir():
            raise DatasetError(f"'{name}': {folder} is no folder")
    return folders[0], folders[1]


def count_classes(name: str, ignore_label: int = 255) -> int:
    """One more than the largest id in the masks of ``folder:IMAGES,MASKS``; at least 2.

    Masks that cannot be read are passed over: reading the dataset tells what is wrong with them.

    Raises:
        DatasetError: a spelling that names no two folders, or a folder without pictures.
    """

    def ids_of(path: Path) -> set[int]:
        try:
            label = read_label(str(path))
        except DatasetError:
            return set()
        return set(np.unique(label[label >= 0]).tolist())

    _, masks = _folders(name)
    with ThreadPoolExecutor() as pool:
        ids = set().union(*pool.map(ids_of, _by_stem(masks).values()))
    return max(max(ids - {ignore_label}, default=0) + 1, 2)


def _by_stem(folder: Path, report: Report = raise_error) -> dict[str, Path]:
    """Path below the folder without suffix -> picture."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in _SUFFIXES or not path.is_file():
            continue
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in found:
            report(DatasetError(f"{path}: {found[stem].name} has the same name but for the suffix"))
        else:
            found[stem] = path
    if not found:
        raise DatasetError(f"{folder}: no images ({', '.join(_SUFFIXES)})")
    return found


def _without_ending(found: dict[str, Path]) -> dict[str, Path]:
    """Leave ``_word`` out where all names end in it; a number is no ending."""
    endings = {stem.rpartition("_")[2] for stem in found}
    if len(endings) != 1 or not all("_" in Path(stem).name for stem in found):
        return found
    (ending,) = endings
    return (
        found if ending.isdigit() else {k.removesuffix(f"_{ending}"): v for k, v in found.items()}
    )
