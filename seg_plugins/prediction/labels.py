"""What the numbers of a prediction stand for: names, colours and ids of the classes."""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from ..data import Dataset, DatasetError, apply_custom_dataset
from ..data.datasets.class_table import spread_colors
from ..engine.checks.consistency import makes_labels, tasks_of
from ..io.label_encoding import LabelEncoding
from ..tasks import DETECTRON2_SYSTEMS
from .errors import PredictionError
from .known_images import KnownImages, annotation_file

logger = logging.getLogger(__name__)

# Names that datasets give to what is no object, in lower case.
BACKGROUND = ("background", "_background_", "bg", "void", "other", "unlabeled", "unlabelled")
_IDS_SUFFIX = "_dataset_id_to_contiguous_id"


class ClassNameError(PredictionError):
    """A class name that the model does not know; the message lists the nearest."""


@dataclass(frozen=True)
class Label:
    """One class.

    Attributes:
        name: as the dataset spells it.
        color: (R, G, B).
        category_id: id in COCO files: the dataset's own where it has one.
        is_thing: countable.
    """

    name: str
    color: tuple[int, int, int]
    category_id: int
    is_thing: bool


@dataclass(frozen=True)
class Labels:
    """The classes of a model.

    Attributes:
        things: by the class of an instance, and the category of a panoptic segment that is one.
        stuff: by the semantic label, and the category of the other panoptic segments. It may
            hold the things too.
        ignore_label: of pixels that belong to no class.
        things_in_stuff: the category of a thing, instance or panoptic segment, is its place in
            `stuff` (``MODEL.PANOPTIC_FPN.THING_IDS``), not in `things` as in Detectron2.
        label_divisor: of panoptic ids without segments; 0 where there is none.
        images: the test sets, whose images keep their ids.
        stored: the value of each label in `stuff` in the dataset's label files, the smallest where
            it has several; (): those are the class ids, or `category_id`. None: they hold colours.
    """

    things: tuple[Label, ...] = ()
    stuff: tuple[Label, ...] = ()
    ignore_label: int = 255
    things_in_stuff: bool = False
    label_divisor: int = 0
    images: KnownImages = field(default_factory=KnownImages)
    stored: tuple[int, ...] | None = ()

    @property
    def all(self) -> tuple[Label, ...]:
        """Every class once."""
        names = {label.name for label in self.stuff}
        return (*self.stuff, *(label for label in self.things if label.name not in names))

    def of_instance(self, category: int) -> Label:
        """The class of an instance."""
        return (self.stuff if self.things_in_stuff else self.things)[category]

    def of_segment(self, segment: Mapping[str, Any]) -> Label:
        """The class of a panoptic segment."""
        if segment["isthing"] and self.things:
            return self.of_instance(segment["category_id"])
        return self.stuff[segment["category_id"]]

    def clear(self, names: Sequence[str] | None) -> frozenset[str]:
        """The classes that overlays leave clear: those of `names`, or, of None, the background.

        Raises:
            ClassNameError: an unknown name.
        """
        if names is not None:
            return frozenset(self.find(names))
        return frozenset(label.name for label in self.all if label.name.lower() in BACKGROUND)

    def without(self, ids: np.ndarray, clear: frozenset[str]) -> np.ndarray:
        """(H, W) class ids with the ignore label in the place of some classes."""
        places = [i for i, label in enumerate(self.stuff) if label.name in clear]
        if not places:
            return ids
        return np.where(np.isin(ids, places), ids.dtype.type(self.ignore_label), ids)

    def find(self, names: Iterable[str]) -> list[str]:
        """Spell class names as the dataset does; upper and lower case do not count.

        Raises:
            ClassNameError: an unknown name.
        """
        known = {label.name.lower(): label.name for label in self.all}
        found = []
        for name in names:
            if name.lower() not in known:
                near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.4) or known
                listed = ", ".join(known[key] for key in list(near)[:20])
                raise ClassNameError(f"no class '{name}' in this model. Nearest: {listed}")
            found.append(known[name.lower()])
        return found


def labels_from_config(cfg: CfgNode) -> Labels:
    """The classes of ``DATASETS``, whose metadata names them.

    A dataset of the user's own (``DATASETS.CUSTOM``) is registered and sets the numbers of classes
    in `cfg`, as in training.

    Where the dataset's description is not at hand or does not fit the model, classes are called
    ``class_0``, ``class_1``, ..., and a warning says so.
    """
    return labels_from_metadata(cfg, _metadata(cfg))


def labels_from_metadata(cfg: CfgNode, metadata: dict[str, Any]) -> Labels:
    """The classes that a dataset's metadata names, of a model of this configuration."""
    tasks = tasks_of(cfg.MODEL.META_ARCHITECTURE)
    if not metadata.get("stuff_classes") and makes_labels(cfg.MODEL.META_ARCHITECTURE):
        metadata = _with_background(metadata)
    counts = {
        "stuff": max(cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, 2) if "sem_seg" in tasks else 0,
        "thing": cfg.MODEL.ROI_HEADS.NUM_CLASSES if "instances" in tasks else 0,
    }
    if not tasks:  # a system of somebody else that does not say
        counts = {kind: len(metadata.get(f"{kind}_classes") or ()) for kind in counts}
    first_id = 1 if counts["thing"] else 0
    thing_classes = metadata.get("thing_classes") or ()
    numbers = metadata.get(f"thing{_IDS_SUFFIX}", {}).values()
    # Detectron2's "standard" panoptic datasets list all classes as things, and map the true ones.
    thing_names = {thing_classes[i] for i in numbers} if numbers else set(thing_classes)
    stuff = _labels(metadata, "stuff", counts["stuff"], first_id, thing_names)
    thing_ids = cfg.MODEL.PANOPTIC_FPN.get("THING_IDS") or ()
    # They are of this package's panoptic systems alone.
    if cfg.MODEL.META_ARCHITECTURE in DETECTRON2_SYSTEMS or not all(counts.values()):
        thing_ids = ()
    if thing_ids:
        stuff = _with_things(stuff, thing_ids, _category_ids(metadata, "thing"))
        things = tuple(stuff[i] for i in thing_ids)
    else:
        things = _labels(metadata, "thing", counts["thing"], first_id, thing_names)
    return Labels(
        things,
        stuff,
        metadata.get("ignore_label", cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE),
        bool(thing_ids),
        metadata.get("label_divisor", 0),
        KnownImages(tuple(cfg.DATASETS.TEST)),
        () if things else _stored(metadata, len(stuff)),
    )


def _stored(metadata: dict[str, Any], count: int) -> tuple[int, ...] | None:
    """The values of the classes in label files; see :attr:`Labels.stored`."""
    encoding = metadata.get("sem_seg_loading_fn")
    if not isinstance(encoding, LabelEncoding) or len(metadata["stuff_classes"]) != count:
        return ()
    if encoding.colors:
        return None
    values: dict[int, int] = {}
    for value, place in sorted(encoding.values):
        values.setdefault(place, value)
    return tuple(values[i] for i in range(count)) if values.keys() >= set(range(count)) else ()


def _metadata(cfg: CfgNode) -> dict[str, Any]:
    """The metadata of the first dataset, with the classes' ids of its annotation file."""
    try:
        apply_custom_dataset(cfg)
    except DatasetError as error:
        logger.warning("Classes are numbered, their names are not at hand: %s", error)
        return {}
    names = [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]
    if not names:
        return {}
    metadata = MetadataCatalog.get(names[0]).as_dict()
    # Files of one dataset may number the classes differently: those of the test set count, which
    # predictions are compared with.
    for name in (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN):
        try:
            ids = _known_ids(name)
        except DatasetError as error:
            logger.warning("Category ids count from 1; those of %s are not known: %s", name, error)
            continue
        key = f"thing{_IDS_SUFFIX}"
        whole = len(ids.get(key, ())) == len(metadata.get("thing_classes") or ())
        if key not in ids or ids[key] == metadata.get(key) or whole:
            return metadata | ids
        logger.warning("%s has ids for %d of the classes only", name, len(ids[key]))
    return metadata


def _known_ids(name: str) -> dict[str, Any]:
    """The classes' ids of a dataset, which is loaded where its file alone tells them."""
    metadata = MetadataCatalog.get(name)
    numbered = any(key.endswith(_IDS_SUFFIX) for key in metadata.as_dict())
    file = annotation_file(name)
    if not numbered and file:
        if not os.path.isfile(file):
            raise DatasetError(f"{file}: no such file")
        Dataset.get(name, 1.0)  # whatever is wrong with its annotations
    return {key: ids for key, ids in metadata.as_dict().items() if key.endswith(_IDS_SUFFIX)}


def _labels(
    metadata: dict[str, Any], kind: str, count: int, first_id: int, thing_names: set[str]
) -> tuple[Label, ...]:
    if not count:
        return ()
    names: Sequence[str] = metadata.get(f"{kind}_classes") or ()
    if len(names) != count and not _is_things_as_one(metadata, kind, count):
        if names:
            logger.warning(
                "The dataset has %d %s classes, the model %d: its classes are numbered.",
                len(names),
                kind,
                count,
            )
        names, metadata = [f"class_{i}" for i in range(count)], {}
    colors = metadata.get(f"{kind}_colors") or spread_colors(len(names))
    ids = _category_ids(metadata, kind)
    return tuple(
        Label(
            name,
            (int(colors[i][0]), int(colors[i][1]), int(colors[i][2])),
            ids.get(i, i + first_id),
            kind == "thing" or name in thing_names,
        )
        for i, name in enumerate(names)
    )


def _with_background(metadata: dict[str, Any]) -> dict[str, Any]:
    """Metadata of objects alone, with the semantic labels that are made of them."""
    names = [*metadata.get("thing_classes", ())]
    if not names:
        return metadata
    ids = metadata.get(f"thing{_IDS_SUFFIX}") or {i + 1: i for i in range(len(names))}
    ids = {**ids, max(ids) + 1: len(names)}
    return {**metadata, "stuff_classes": [*names, "background"], f"stuff{_IDS_SUFFIX}": ids}


def _with_things(
    labels: Sequence[Label], thing_ids: Sequence[int], category_ids: dict[int, int]
) -> tuple[Label, ...]:
    """Labels of which some are things, with the things' own ids if they are at hand."""
    if category_ids.keys() != set(thing_ids):  # of a dataset that counts things from 0
        category_ids = {}
    return tuple(
        replace(label, is_thing=i in thing_ids, category_id=category_ids.get(i, label.category_id))
        for i, label in enumerate(labels)
    )


def _category_ids(metadata: dict[str, Any], kind: str) -> dict[int, int]:
    """The dataset's ids of classes, by ours."""
    known = metadata.get(f"{kind}{_IDS_SUFFIX}", {})
    return {place: category for category, place in known.items()}


def _is_things_as_one(metadata: dict[str, Any], kind: str, count: int) -> bool:
    """Whether a semantic head of a panoptic system has one class for all things."""
    stuff, things = (metadata.get(f"{k}_classes") or () for k in ("stuff", "thing"))
    return kind == "stuff" and bool(things) and count == len(set(stuff) - set(things)) + 1
