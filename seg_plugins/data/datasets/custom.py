"""A dataset of the user's own, described by one YAML file: see datasets/custom.example.yaml."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from ...tasks import TASKS
from ..errors import DatasetError, Report, raise_error
from .catalogue import register_row
from .class_table import ClassTable
from .custom_classes import class_table
from .folder_pairs import apply_folder_datasets
from .instance_layouts import CocoInstances, CocoPanoptic, CocoPanopticSeparated
from .labelme import Labelme
from .layouts import Folders, Layout
from .raster_description import RASTER_KEYS, raster_layouts
from .row import Row
from .via import Via
from .yolo import Yolo

__all__ = ["RandomPart", "apply_custom_dataset", "described_task", "register_custom_dataset"]

_TASKS = (*(task.name for task in reversed(TASKS)), "panoptic_separated")
_KEYS = {
    "name",
    "task",
    "root",
    "classes",
    "ignore_label",
    "labels",
    "images",
    "masks",
    "format",
    "image_suffix",
    "mask_suffix",
    "split",
    "train",
    "unlisted",
    "val",
    *RASTER_KEYS,
}
# Annotations of instances: format -> the layout of a part's keys.
FORMATS: dict[str, Callable[[dict[str, Any]], Layout]] = {
    "coco": lambda part: CocoInstances(_path(part, "images"), _path(part, "json")),
    "yolo": lambda part: Yolo(_path(part, "images"), _path(part, "labels")),
    "labelme": lambda part: Labelme(_path(part, "labels"), _path(part, "images", "")),
    "via": lambda part: Via(_path(part, "images"), _path(part, "json")),
}  # fmt: skip


# Semantic descriptions name their folders beside name and root, the others do not.
_BELOW_TRAIN = (
    "; folders and files stand below train, as in train: {images: ..., labels: ...} "
    "(the keys of each format: datasets/custom.example.yaml)"
)


@dataclass(frozen=True)
class RandomPart:
    """One part of a dataset that is split at random with a fixed seed.

    Attributes:
        layout: where all its samples lie.
        fraction: of the samples that validate, the first in the random order.
        validates: whether this part is theirs, or the rest.
        seed: of the order.
    """

    layout: Layout
    fraction: float
    validates: bool
    seed: int

    def records(
        self, folder: Path, table: ClassTable, report: Report = raise_error
    ) -> list[dict[str, Any]]:
        """The samples of this part, in the order of their names."""
        records = self.layout.records(folder, table, report)
        _check_parts(len(records), self.fraction)
        order = np.random.default_rng(self.seed).permutation(len(records))
        count = round(self.fraction * len(records))
        chosen = order[:count] if self.validates else order[count:]
        return [records[i] for i in sorted(chosen)]

    def paths(self, folder: Path) -> dict[str, str]:
        """As of the layout."""
        return self.layout.paths(folder)


def register_custom_dataset(path: str | Path) -> dict[str, str]:
    """Register the splits that a YAML file describes.

    Args:
        path: the file; the paths in it are relative to it.

    Returns:
        Split ("train", "val") -> registered name.

    Raises:
        DatasetError: a missing file, an unknown or missing key, a wrong value.
    """
    path = Path(path).expanduser()
    content = _read(path)
    try:
        task = _choice(content, "task", _TASKS)
        folder = (path.parent / Path(_path(content, "root", ".")).expanduser()).resolve()
        table = class_table(content, str(path), folder)
        labels = content.get("labels", "index") if RASTER_KEYS.isdisjoint(content) else "index"
        if labels not in ("index", "colours"):
            folders = "" if task == "semantic" else _BELOW_TRAIN
            raise DatasetError(
                f"labels is {labels!r}; it should be 'index' (grey or palette PNG) or 'colours'"
                + folders
            )
        table.encoding(colors=labels == "colours")  # refuses what is ambiguous
        layouts = _layouts(content, task)
        names = {}
        for split, layout in layouts.items():
            ending = "_separated" if task == "panoptic_separated" else ""
            names[split] = f"{_text(content, 'name')}_{split}{ending}"
            row = Row(names[split], task, "", str(folder), layout, color_labels=labels == "colours")
            if names[split] in DatasetCatalog.list():
                # Described again, e.g. after an edit in a notebook.
                DatasetCatalog.pop(names[split])
                MetadataCatalog.pop(names[split])
            register_row(row, table)
    except DatasetError as error:
        raise DatasetError(f"{path}: {error}") from None
    return names


def described_task(path: str | Path) -> str:
    """``task`` of a description.

    Raises:
        DatasetError: the file is missing or unreadable, or has no known task.
    """
    content = _read(Path(path).expanduser())
    try:
        return _choice(content, "task", _TASKS)
    except DatasetError as error:
        raise DatasetError(f"{path}: {error}") from None


def apply_custom_dataset(cfg: CfgNode) -> None:
    """Register the dataset of ``DATASETS.CUSTOM`` and make the configuration train on it.

    Sets the datasets, the numbers of classes, the ignore label and the labels of things, and logs
    what it set. Where the key is empty, it registers what DATASETS.TRAIN and TEST spell as
    ``folder:...``.

    Raises:
        DatasetError: see `register_custom_dataset` and `apply_folder_datasets`.
    """
    if not cfg.DATASETS.CUSTOM:
        apply_folder_datasets(cfg)
        return
    names = register_custom_dataset(cfg.DATASETS.CUSTOM)
    metadata = MetadataCatalog.get(names["train"])
    cfg.DATASETS.TRAIN = (names["train"],)
    cfg.DATASETS.TEST = (names["val"],) if "val" in names else ()
    changes = {"DATASETS.TRAIN": cfg.DATASETS.TRAIN, "DATASETS.TEST": cfg.DATASETS.TEST}
    if "stuff_classes" in metadata.as_dict():
        cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = len(metadata.stuff_classes)
        cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE = metadata.ignore_label
        changes["MODEL.SEM_SEG_HEAD.NUM_CLASSES"] = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
        changes["MODEL.SEM_SEG_HEAD.IGNORE_VALUE"] = cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
    if "thing_classes" in metadata.as_dict():
        cfg.MODEL.ROI_HEADS.NUM_CLASSES = len(metadata.thing_classes)
        changes["MODEL.ROI_HEADS.NUM_CLASSES"] = cfg.MODEL.ROI_HEADS.NUM_CLASSES
    if {"stuff_classes", "thing_classes"} <= metadata.as_dict().keys():
        # [] where one label stands for all things: "separated" data, and PANOPTIC_THINGS_AS_ONE.
        classes, things = list(metadata.stuff_classes), list(metadata.thing_classes)
        own_labels = set(things) <= set(classes) and not cfg.INPUT.PANOPTIC_THINGS_AS_ONE
        thing_ids = sorted(map(classes.index, things)) if own_labels else []
        cfg.MODEL.PANOPTIC_FPN.THING_IDS = thing_ids
        changes["MODEL.PANOPTIC_FPN.THING_IDS"] = thing_ids
    logging.getLogger(__name__).info(
        "%s sets %s", cfg.DATASETS.CUSTOM, ", ".join(f"{k} {v}" for k, v in changes.items())
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_bytes())  # which heeds a byte order mark
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such file (DATASETS.CUSTOM)") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DatasetError(f"{path}: not readable as YAML ({error})") from None
    if not isinstance(content, dict):
        raise DatasetError(f"{path}: expected keys and values; see datasets/custom.example.yaml")
    unknown = sorted(set(map(str, content)) - _KEYS)
    if unknown:
        raise DatasetError(f"{path}: unknown key '{unknown[0]}'; known are {sorted(_KEYS)}")
    return content


def _layouts(content: dict[str, Any], task: str) -> dict[str, Layout]:
    if not RASTER_KEYS.isdisjoint(content):
        return raster_layouts(content, task)
    known = tuple(FORMATS) if task == "instance" else ("coco",)
    form = _choice({"format": content.get("format", "coco")}, "format", known)
    if task == "semantic":
        return _folders(content)
    layouts: dict[str, Layout] = {}
    for split in ("train", "val"):
        if split not in content:
            continue
        part = content[split]
        if not isinstance(part, dict):
            raise DatasetError(f"{split} should have the keys of the {task} layout")
        if task == "instance":
            layouts[split] = FORMATS[form](part)
        elif task == "panoptic":
            layouts[split] = CocoPanoptic(
                _path(part, "images"), _path(part, "panoptic"), _path(part, "json")
            )
        else:
            layouts[split] = CocoPanopticSeparated(
                _path(part, "images"),
                _path(part, "instances"),
                _path(part, "labels"),
                _path(part, "panoptic"),
                _path(part, "json"),
            )
    if "train" not in layouts:
        raise DatasetError(f"train is missing{_BELOW_TRAIN}")
    if "split" not in content:
        return layouts
    if "val" in layouts or task != "instance" or form == "coco":
        raise DatasetError("split parts train where there is no val, of task instance and format "
                           "yolo, labelme or via")  # fmt: skip
    return _random_parts(layouts["train"], content["split"])


def _folders(content: dict[str, Any]) -> dict[str, Layout]:
    folders = Folders(
        _path(content, "images"),
        _path(content, "masks"),
        str(content.get("image_suffix", "")),
        str(content.get("mask_suffix", "")),
    )
    if "train" in content or "val" in content:
        if "split" in content or "train" not in content:
            raise DatasetError("give train and val, or split, or train alone")
        return {
            split: replace(folders, stems=_path(content, split))
            for split in ("train", "val")
            if split in content
        }
    return _random_parts(folders, content.get("split", {}))


def _random_parts(layout: Layout, given: Any) -> dict[str, Layout]:
    fraction, seed = _split(given)
    parts: dict[str, Layout] = {"train": RandomPart(layout, fraction, False, seed)}
    if fraction:
        parts["val"] = RandomPart(layout, fraction, True, seed)
    return parts


def _split(given: Any) -> tuple[float, int]:
    """The fraction that validates, and the seed."""
    if not isinstance(given, dict):
        raise DatasetError(f"split should have val_fraction and seed, not {given!r}")
    unknown = sorted(set(map(str, given)) - {"val_fraction", "seed"})
    if unknown:
        raise DatasetError(f"split: unknown key '{unknown[0]}'; known are val_fraction and seed")
    fraction, seed = given.get("val_fraction", 0.2), given.get("seed", 0)
    if type(fraction) not in (int, float) or not 0 <= fraction < 1:
        raise DatasetError(f"split.val_fraction is {fraction!r}; it should be in [0, 1)")
    if type(seed) is not int or seed < 0:
        raise DatasetError(f"split.seed is {seed!r}; it should be an integer of at least 0")
    return fraction, seed


def _check_parts(samples: int, fraction: float) -> None:
    """Raise DatasetError where a random split leaves one part without samples."""
    count = round(fraction * samples)
    if fraction and not 0 < count < samples:
        problem = "none to validate" if count == 0 else "none to train"
        fix = "split: {val_fraction: 0.5}" if samples > 1 else "more samples"
        raise DatasetError(
            f"split.val_fraction {fraction} of {samples} samples leaves {problem}; give {fix}, or "
            "split: {val_fraction: 0} to train without validation"
        )


def _path(content: dict[str, Any], key: str, default: str | None = None) -> str:
    """A path, with forward slashes whatever system the description was written on."""
    if default is not None and key not in content:
        return default
    return _text(content, key).replace("\\", "/")


def _text(content: dict[str, Any], key: str) -> str:
    value = content.get(key)
    if not isinstance(value, str) or not value:
        raise DatasetError(f"{key} is missing or no text; see datasets/custom.example.yaml")
    return value


def _choice(content: dict[str, Any], key: str, known: tuple[str, ...]) -> str:
    value = content.get(key)
    if value not in known:
        raise DatasetError(f"{key} is {value!r}; it should be one of {', '.join(known)}")
    return str(value)
