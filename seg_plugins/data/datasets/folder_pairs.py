"""``folder:IMAGES,MASKS`` in DATASETS.TRAIN and TEST: two folders as a dataset, with no file."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from ...io.images import read_label
from ..errors import DatasetError
from .catalogue import register_row
from .class_table import parse_class_table
from .layouts import Folders
from .pairing import Side
from .row import Row

__all__ = ["apply_folder_datasets", "count_classes", "register_folder_dataset"]

PREFIX = "folder:"


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
    layout = Folders(str(folders[0]), str(folders[1]), "", "")
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
    paths = [path for paths in Side(masks, "", "mask_suffix").files().values() for path in paths]
    with ThreadPoolExecutor() as pool:
        ids = set().union(*pool.map(ids_of, paths))
    return max(max(ids - {ignore_label}, default=0) + 1, 2)
