"""Values that model and data share, checked against each other before training starts."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Sequence
from itertools import zip_longest

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import META_ARCH_REGISTRY

from ...config import ConfigError
from ...data import Dataset, reads_masks
from ...tasks import UnknownTaskError, task_of_output, trained_for

logger = logging.getLogger(__name__)

_MORE_SAMPLES = {
    "TRAIN": "Nothing can be trained on it.",
    "TEST": (
        "Of a description (DATASETS.CUSTOM): give split.val_fraction a share that takes one, or 0 "
        "to train without validation. Else set DATASETS.TEST ()."
    ),
}


def tasks_of(meta_architecture: str) -> tuple[str, ...]:
    """What a meta-architecture is trained for: ``sem_seg``, ``instances`` or both.

    Raises:
        ConfigError: the name is not registered, and the nearest are listed; or its class is
            trained for something unknown.
    """
    names = [name for name, _ in META_ARCH_REGISTRY]
    if meta_architecture not in names:
        near = difflib.get_close_matches(meta_architecture, names, n=3, cutoff=0.3) or names
        raise ConfigError(
            f"MODEL.META_ARCHITECTURE {meta_architecture} is not known. Nearest: {', '.join(near)}"
        )
    try:
        return trained_for(META_ARCH_REGISTRY.get(meta_architecture))
    except UnknownTaskError as error:
        raise ConfigError(f"MODEL.META_ARCHITECTURE {meta_architecture}: tasks: {error}") from None


def makes_labels(meta_architecture: str) -> bool:
    """Whether a system makes semantic labels of the objects where a dataset has none.

    They are the classes of the objects, and one more for the background.
    """
    system = META_ARCH_REGISTRY.get(meta_architecture)
    return bool(getattr(system, "makes_semantic_labels", False))


def check_datasets(cfg: CfgNode) -> None:
    """Load every dataset and check that classes and ignore label agree with the model's.

    Raises:
        ConfigError: an unknown or empty dataset or a contradiction, with the value to set.
        DatasetError: a dataset that is not readable, or has more wrong annotations than
            ``DATALOADER.MAX_DAMAGED`` allows.
    """
    check_classes(cfg)  # what can be told without a file comes first
    for split in ("TRAIN", "TEST"):
        for name in cfg.DATASETS[split]:
            if not Dataset.get(name, cfg.DATALOADER.MAX_DAMAGED).records:
                raise ConfigError(f"DATASETS.{split}: {name} has no sample. {_MORE_SAMPLES[split]}")
    check_classes(cfg)


def check_classes(cfg: CfgNode) -> None:
    """The same as far as the datasets' metadata tells; no file is read.

    Raises:
        ConfigError: an unknown dataset or a contradiction, with the value to set.
    """
    tasks = tasks_of(cfg.MODEL.META_ARCHITECTURE)
    for split in ("TRAIN", "TEST"):
        key = f"DATASETS.{split}"
        for name in cfg.DATASETS[split]:
            _check_known(key, name)
            labelled = MetadataCatalog.get(name).get("stuff_classes")
            if "sem_seg" in tasks and (labelled or not makes_labels(cfg.MODEL.META_ARCHITECTURE)):
                _check_semantic(cfg, key, name)
            if "instances" in tasks:
                _check_instances(cfg, key, name)
    _check_same_classes(cfg, tasks)


def check_masks(cfg: CfgNode) -> None:
    """Check that samples have the masks that the model is trained on.

    Raises:
        ConfigError: they are left out.
    """
    wanted = cfg.MODEL.MASK_ON and "instances" in tasks_of(cfg.MODEL.META_ARCHITECTURE)
    left_out = cfg.INPUT.MASK_FORMAT == "none" and reads_masks(cfg)
    if wanted and left_out:
        raise ConfigError(
            "MODEL.MASK_ON True trains on masks, which INPUT.MASK_FORMAT none leaves out: set "
            "INPUT.MASK_FORMAT bitmask (or polygon), or MODEL.MASK_ON False to train on boxes"
        )


def _check_known(key: str, name: str) -> None:
    known = DatasetCatalog.list()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.3)
        raise ConfigError(f"{key}: dataset '{name}' is not registered. Nearest: {', '.join(near)}")


def _names(key: str, kind: str, name: str, missing: str) -> list[str]:
    """The classes that the metadata of a dataset lists; none as long as loading may tell them.

    Raises:
        ConfigError: it lists none although it is loaded.
    """
    names = list(MetadataCatalog.get(name).get(kind) or ())
    if not names and Dataset.loaded(name) is not None:
        raise ConfigError(f"{key}: {name} has {missing}")
    return names


def _check_semantic(cfg: CfgNode, key: str, name: str) -> None:
    architecture, head = cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.SEM_SEG_HEAD
    classes = _names(
        key, "stuff_classes", name,
        f"no semantic classes, which {architecture} is trained on. Choose a semantic dataset, e.g. "
        "shapes_train.",
    )  # fmt: skip
    if not classes:
        return
    # K = 1 is a binary problem with one logit: background and one class.
    if len(classes) != head.NUM_CLASSES and not (head.NUM_CLASSES == 1 and len(classes) == 2):
        raise ConfigError(
            f"{name} has {len(classes)} classes, the model {head.NUM_CLASSES}: set "
            f"MODEL.SEM_SEG_HEAD.NUM_CLASSES {len(classes)}"
        )
    ignore = MetadataCatalog.get(name).get("ignore_label", 255)
    if ignore != head.IGNORE_VALUE:
        raise ConfigError(
            f"{name} marks ignored pixels with {ignore}, the model expects {head.IGNORE_VALUE}: "
            f"set MODEL.SEM_SEG_HEAD.IGNORE_VALUE {ignore}"
        )


def _check_instances(cfg: CfgNode, key: str, name: str) -> None:
    architecture, metadata = cfg.MODEL.META_ARCHITECTURE, MetadataCatalog.get(name)
    classes = _names(
        key, "thing_classes", name,
        f"no object instances, which {architecture} is trained on. Choose an instance dataset, "
        "e.g. shapes_instance_train.",
    )  # fmt: skip
    if not classes:
        return
    count = len(classes)
    if classes == metadata.get("stuff_classes"):
        # Detectron2's panoptic datasets repeat all classes here; the ids tell which are things.
        count = len(set(metadata.thing_dataset_id_to_contiguous_id.values()))
    if count != cfg.MODEL.ROI_HEADS.NUM_CLASSES:
        raise ConfigError(
            f"{name} has {count} object classes, the model {cfg.MODEL.ROI_HEADS.NUM_CLASSES}: set "
            f"MODEL.ROI_HEADS.NUM_CLASSES {count}"
        )


def _check_same_classes(cfg: CfgNode, tasks: Sequence[str]) -> None:
    """Every dataset counts the same classes in the same order."""
    names = (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
    for key in dict.fromkeys(task_of_output(task).class_list for task in tasks):
        for other in names[1:]:
            first, second = (list(MetadataCatalog.get(n).get(key) or ()) for n in (names[0], other))
            if first == second or not (first and second):
                continue
            pairs = zip_longest(first, second, fillvalue="(none)")
            a, b = next(pair for pair in pairs if pair[0] != pair[1])
            raise ConfigError(
                f"{names[0]} and {other} name their classes differently: '{a}' against '{b}'. "
                "Where the same classes are meant, give both the same list: "
                f"MetadataCatalog.get('{other}').{key} = {first}"
            )
