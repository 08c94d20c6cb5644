"""A dataset of the user's own, described by one YAML file: see datasets/custom.example.yaml."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from ..errors import DatasetError, Report, raise_error
from .catalogue import register_row
from .class_table import ClassTable, parse_class_table
from .folder_pairs import apply_folder_datasets
from .instance_layouts import CocoInstances, CocoPanoptic, CocoPanopticSeparated
from .layouts import Folders, Layout
from .row import Row

__all__ = ["CustomFolders", "apply_custom_dataset", "register_custom_dataset"]

_TASKS = ("semantic", "instance", "panoptic", "panoptic_separated")
_KEYS = {
    "name", "task", "root", "classes", "ignore_label", "labels", "images", "masks",
    "image_suffix", "mask_suffix", "split", "train", "val",
}  # fmt: skip


@dataclass(frozen=True)
class CustomFolders:
    """One part of two folders of images and masks, split at random with a fixed seed.

    Attributes:
        folders: where images and masks lie.
        part: (first, last) as fractions of the samples in the random order.
        seed: of the order.
    """

    folders: Folders
    part: tuple[float, float]
    seed: int

    def records(
        self, folder: Path, table: ClassTable, report: Report = raise_error
    ) -> list[dict[str, Any]]:
        """The samples of this part, in the order of their names."""
        records = self.folders.records(folder, table, report)
        order = np.random.default_rng(self.seed).permutation(len(records))
        first, last = (round(fraction * len(records)) for fraction in self.part)
        return [records[i] for i in sorted(order[first:last])]

    def paths(self, folder: Path) -> dict[str, str]:
        """As of the folders."""
        return self.folders.paths(folder)


def register_custom_dataset(path: str | Path) -> dict[str, str]:
    """Register the splits that a YAML file describes.

    Args:
        path: the file; the paths in it are relative to it.

    Returns:
        Split ("train", "val") -> registered name.

    Raises:
        DatasetError: a missing file, an unknown or missing key, a wrong value.
    """
    path = Path(path)
    content = _read(path)
    try:
        table = _class_table(content, str(path))
        task = _choice(content, "task", _TASKS)
        labels = content.get("labels", "index")
        if labels not in ("index", "colours"):
            raise DatasetError(
                f"labels is {labels!r}; it should be 'index' (grey or palette PNG) or 'colours'"
            )
        table.encoding(colours=labels == "colours")  # refuses what is ambiguous
        folder = (path.parent / str(content.get("root", "."))).resolve()
        layouts = _layouts(content, task)
        names = {}
        for split, layout in layouts.items():
            ending = "_separated" if task == "panoptic_separated" else ""
            names[split] = f"{_text(content, 'name')}_{split}{ending}"
            row = Row(
                names[split], task, "", str(folder), layout, colour_labels=labels == "colours"
            )
            if names[split] in DatasetCatalog.list():
                # Described again, e.g. after an edit in a notebook.
                DatasetCatalog.pop(names[split])
                MetadataCatalog.pop(names[split])
            register_row(row, table)
    except DatasetError as error:
        raise DatasetError(f"{path}: {error}") from None
    return names


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
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
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


def _class_table(content: dict[str, Any], name: str) -> ClassTable:
    """The classes: names, or mappings with name, color, thing and value."""
    classes = content.get("classes")
    if not isinstance(classes, list) or not classes:
        raise DatasetError("classes should be a list of names, or of name, color, thing, value")
    things = content.get("task") == "instance"
    entries = []
    for entry in classes:
        entry = {"name": entry} if not isinstance(entry, dict) else dict(entry)
        unknown = set(entry) - {"name", "color", "thing", "value"}
        if unknown or "name" not in entry:
            raise DatasetError(
                f"classes: {entry} should have name and may have color, thing, value"
            )
        entry["isthing"] = entry.pop("thing", things)
        entry["label_value"] = entry.pop("value", None)
        entries.append(entry)
    with_value = [e["label_value"] is not None for e in entries]
    if any(with_value) and not all(with_value):
        raise DatasetError("classes: give a value for all of them or for none")
    ignore_label = content.get("ignore_label", 255)
    if type(ignore_label) is not int or not len(entries) <= ignore_label <= 65535:
        raise DatasetError(
            f"ignore_label is {ignore_label!r}; it should be an integer above the ids of the "
            f"{len(entries)} classes, e.g. 255"
        )
    table = parse_class_table({"classes": entries, "ignore_label": ignore_label}, name)
    if len(set(table.names)) != len(table.names):
        raise DatasetError("classes: a name stands twice")
    return replace(table, source=name)


def _layouts(content: dict[str, Any], task: str) -> dict[str, Layout]:
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
            layouts[split] = CocoInstances(_text(part, "images"), _text(part, "json"))
        elif task == "panoptic":
            layouts[split] = CocoPanoptic(
                _text(part, "images"), _text(part, "panoptic"), _text(part, "json")
            )
        else:
            layouts[split] = CocoPanopticSeparated(
                _text(part, "images"),
                _text(part, "instances"),
                _text(part, "labels"),
                _text(part, "panoptic"),
                _text(part, "json"),
            )
    if "train" not in layouts:
        raise DatasetError("train is missing")
    return layouts


def _folders(content: dict[str, Any]) -> dict[str, Layout]:
    folders = Folders(
        _text(content, "images"),
        _text(content, "masks"),
        str(content.get("image_suffix", ".jpg")),
        str(content.get("mask_suffix", ".png")),
    )
    if "train" in content or "val" in content:
        if "split" in content or "train" not in content:
            raise DatasetError("give train and val, or split, or train alone")
        return {
            split: replace(folders, stems=_text(content, split))
            for split in ("train", "val")
            if split in content
        }
    fraction, seed = _split(content.get("split", {}))
    parts: dict[str, Layout] = {"train": CustomFolders(folders, (fraction, 1.0), seed)}
    if fraction:
        parts["val"] = CustomFolders(folders, (0.0, fraction), seed)
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
