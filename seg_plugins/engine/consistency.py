"""Values that model and data share, checked against each other before training starts."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Sequence
from itertools import zip_longest

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.modeling import META_ARCH_REGISTRY

from ..config import ConfigError
from ..data import Dataset, mapper_name

logger = logging.getLogger(__name__)

# Detectron2's own meta-architectures; this package's classes say it themselves (`tasks`).
DETECTRON2_TASKS = {
    "SemanticSegmentor": ("sem_seg",),
    "GeneralizedRCNN": ("instances",),
    "ProposalNetwork": ("instances",),
    "RetinaNet": ("instances",),
    "PanopticFPN": ("sem_seg", "instances"),
    "PanopticDeepLab": ("sem_seg",),
}

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
        ConfigError: the name is not registered; the nearest are listed.
    """
    names = [name for name, _ in META_ARCH_REGISTRY]
    if meta_architecture not in names:
        near = difflib.get_close_matches(meta_architecture, names, n=3, cutoff=0.3) or names
        raise ConfigError(
            f"MODEL.META_ARCHITECTURE {meta_architecture} is not known. Nearest: {', '.join(near)}"
        )
    own = getattr(META_ARCH_REGISTRY.get(meta_architecture), "tasks", ())
    return tuple(own or DETECTRON2_TASKS.get(meta_architecture, ()))


def check_datasets(cfg: CfgNode) -> None:
    """Check that datasets exist and that classes and ignore label agree with the model's.

    Raises:
        ConfigError: an unknown dataset or a contradiction, with the value to set.
    """
    tasks = tasks_of(cfg.MODEL.META_ARCHITECTURE)
    for split in ("TRAIN", "TEST"):
        key = f"DATASETS.{split}"
        for name in cfg.DATASETS[split]:
            _check_known(key, name)
            dataset = Dataset.get(name, cfg.DATALOADER.MAX_DAMAGED)
            if not dataset.records:
                raise ConfigError(f"{key}: {name} has no sample. {_MORE_SAMPLES[split]}")
            if "sem_seg" in tasks:
                _check_semantic(cfg, key, dataset)
            if "instances" in tasks:
                _check_instances(cfg, key, dataset)
    _check_same_classes(cfg, tasks)


def check_masks(cfg: CfgNode) -> None:
    """Check that samples have the masks that the model is trained on.

    Raises:
        ConfigError: they are left out.
    """
    wanted = cfg.MODEL.MASK_ON and "instances" in tasks_of(cfg.MODEL.META_ARCHITECTURE)
    left_out = cfg.INPUT.MASK_FORMAT == "none" and mapper_name(cfg) == "InstanceMapper"
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


def _check_semantic(cfg: CfgNode, key: str, dataset: Dataset) -> None:
    classes = dataset.stuff.names
    if not classes:
        raise ConfigError(
            f"{key}: {dataset.name} has no semantic classes, which {cfg.MODEL.META_ARCHITECTURE} "
            "is trained on. Choose a semantic dataset, e.g. shapes_train."
        )
    head = cfg.MODEL.SEM_SEG_HEAD
    # K = 1 is a binary problem with one logit: background and one class.
    if len(classes) != head.NUM_CLASSES and not (head.NUM_CLASSES == 1 and len(classes) == 2):
        raise ConfigError(
            f"{dataset.name} has {len(classes)} classes, the model {head.NUM_CLASSES}: set "
            f"MODEL.SEM_SEG_HEAD.NUM_CLASSES {len(classes)}"
        )
    if dataset.ignore_label != head.IGNORE_VALUE:
        raise ConfigError(
            f"{dataset.name} marks ignored pixels with {dataset.ignore_label}, the model expects "
            f"{head.IGNORE_VALUE}: set MODEL.SEM_SEG_HEAD.IGNORE_VALUE {dataset.ignore_label}"
        )


def _check_instances(cfg: CfgNode, key: str, dataset: Dataset) -> None:
    if not dataset.things:
        raise ConfigError(
            f"{key}: {dataset.name} has no object instances, which "
            f"{cfg.MODEL.META_ARCHITECTURE} is trained on. Choose an instance dataset, e.g. "
            "shapes_instance_train."
        )
    if dataset.num_things != cfg.MODEL.ROI_HEADS.NUM_CLASSES:
        raise ConfigError(
            f"{dataset.name} has {dataset.num_things} object classes, the model "
            f"{cfg.MODEL.ROI_HEADS.NUM_CLASSES}: set MODEL.ROI_HEADS.NUM_CLASSES "
            f"{dataset.num_things}"
        )


def _check_same_classes(cfg: CfgNode, tasks: Sequence[str]) -> None:
    """Every dataset counts the same classes in the same order."""
    datasets = [Dataset.get(name) for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)]
    lists = {"sem_seg": "stuff", "instances": "things"}
    for kind in (lists[task] for task in tasks):
        for other in datasets[1:]:
            first, second = (getattr(d, kind).names for d in (datasets[0], other))
            if first == second:
                continue
            pairs = zip_longest(first, second, fillvalue="(none)")
            a, b = next(pair for pair in pairs if pair[0] != pair[1])
            key = "stuff_classes" if kind == "stuff" else "thing_classes"
            raise ConfigError(
                f"{datasets[0].name} and {other.name} name their classes differently: '{a}' "
                f"against '{b}'. Where the same classes are meant, give both the same list: "
                f"MetadataCatalog.get('{other.name}').{key} = {list(first)}"
            )
