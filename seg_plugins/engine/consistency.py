"""Values that model and data share, checked against each other before training starts."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import META_ARCH_REGISTRY

from ..config import ConfigError
from ..data import mapper_name

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
            if "sem_seg" in tasks:
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


def _check_semantic(cfg: CfgNode, key: str, name: str) -> None:
    metadata = MetadataCatalog.get(name)
    classes = metadata.get("stuff_classes")
    if classes is None:
        raise ConfigError(
            f"{key}: {name} has no semantic classes, which {cfg.MODEL.META_ARCHITECTURE} is "
            "trained on. Choose a semantic dataset, e.g. shapes_train."
        )
    head = cfg.MODEL.SEM_SEG_HEAD
    # K = 1 is a binary problem with one logit: background and one class.
    if len(classes) != head.NUM_CLASSES and not (head.NUM_CLASSES == 1 and len(classes) == 2):
        raise ConfigError(
            f"{name} has {len(classes)} classes, the model {head.NUM_CLASSES}: set "
            f"MODEL.SEM_SEG_HEAD.NUM_CLASSES {len(classes)}"
        )
    ignore = metadata.get("ignore_label", 255)
    if ignore != head.IGNORE_VALUE:
        raise ConfigError(
            f"{name} marks ignored pixels with {ignore}, the model expects {head.IGNORE_VALUE}: "
            f"set MODEL.SEM_SEG_HEAD.IGNORE_VALUE {ignore}"
        )


def _check_instances(cfg: CfgNode, key: str, name: str) -> None:
    classes = MetadataCatalog.get(name).get("thing_classes")
    if classes is None:
        DatasetCatalog.get(name)  # Detectron2 fills COCO metadata in while loading
        classes = MetadataCatalog.get(name).get("thing_classes")
    if classes is None:
        raise ConfigError(
            f"{key}: {name} has no object instances, which {cfg.MODEL.META_ARCHITECTURE} is "
            "trained on. Choose an instance dataset, e.g. shapes_instance_train."
        )
    count = len(classes)
    if classes == MetadataCatalog.get(name).get("stuff_classes"):
        # Detectron2's panoptic datasets repeat all classes here; the ids tell which are things.
        count = len(set(MetadataCatalog.get(name).thing_dataset_id_to_contiguous_id.values()))
    if count != cfg.MODEL.ROI_HEADS.NUM_CLASSES:
        raise ConfigError(
            f"{name} has {count} object classes, the model "
            f"{cfg.MODEL.ROI_HEADS.NUM_CLASSES}: set MODEL.ROI_HEADS.NUM_CLASSES {count}"
        )


def _check_same_classes(cfg: CfgNode, tasks: Sequence[str]) -> None:
    lists = {"sem_seg": "stuff_classes", "instances": "thing_classes"}
    names = [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]
    for key in (lists[task] for task in tasks):
        for name in names[1:]:
            first, other = (list(MetadataCatalog.get(n).get(key) or []) for n in (names[0], name))
            if first != other:
                different = next((a, b) for a, b in zip(first, other, strict=False) if a != b)
                raise ConfigError(
                    f"{names[0]} and {name} name their classes differently: "
                    f"'{different[0]}' against '{different[1]}'."
                )
