"""Choosing the mapper that a configuration asks for."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode
from fvcore.common.registry import Registry

from ..config import ConfigError
from ..tasks import task_named
from .augmentation_builder import ignore_label_of
from .dataset import Dataset, task_of_dataset
from .multi_image import CopyPaste, Mosaic

__all__ = ["MAPPER_REGISTRY", "build_mapper", "mapper_name", "reads_masks"]

MAPPER_REGISTRY = Registry("MAPPER")
MAPPER_REGISTRY.__doc__ = "Dataset mappers by name: called with a dict and a generator."


def build_mapper(cfg: CfgNode, is_train: bool) -> Any:
    """The mapper named in ``INPUT.MAPPER``; empty takes the one of the dataset's task.

    With ``INPUT.COPY_PASTE`` or ``INPUT.MOSAIC`` it is wrapped, in training.

    Raises:
        KeyError: there is no mapper of that name.
        ConfigError: a wrapper that does not fit the mapper.
    """
    mapper = MAPPER_REGISTRY.get(mapper_name(cfg))(cfg, is_train=is_train)
    inputs = cfg.INPUT
    if not is_train or not (inputs.COPY_PASTE or inputs.MOSAIC):
        return mapper
    records = [record for name in cfg.DATASETS.TRAIN for record in Dataset.get(name).records]
    if inputs.COPY_PASTE:
        _check_combines(mapper, "COPY_PASTE")
        if inputs.MASK_FORMAT != "bitmask":
            raise ConfigError("INPUT.COPY_PASTE needs INPUT.MASK_FORMAT bitmask")
        return CopyPaste(mapper, records, probability=inputs.COPY_PASTE)
    _check_combines(mapper, "MOSAIC")
    return Mosaic(mapper, records, probability=inputs.MOSAIC, ignore_label=ignore_label_of(cfg))


def _check_combines(mapper: Any, key: str) -> None:
    if key in getattr(mapper, "combines_by", ()):
        return
    fitting = [n for n, known in MAPPER_REGISTRY if key in getattr(known, "combines_by", ())]
    raise ConfigError(
        f"INPUT.{key} needs {' or '.join(fitting)}, or a mapper of your own whose combines_by "
        f"names {key}; {type(mapper).__name__} has none: set INPUT.MAPPER, or INPUT.{key} 0.0"
    )


def reads_masks(cfg: CfgNode) -> bool:
    """Whether the mapper of :func:`build_mapper` reads the masks of annotations."""
    return bool(getattr(MAPPER_REGISTRY.get(mapper_name(cfg)), "reads_masks", False))


def mapper_name(cfg: CfgNode) -> str:
    """The mapper that :func:`build_mapper` makes.

    Raises:
        DatasetError: the task of the first dataset cannot be told.
    """
    if cfg.INPUT.MAPPER:
        return cfg.INPUT.MAPPER
    names = cfg.DATASETS.TRAIN or cfg.DATASETS.TEST
    if not names:
        return task_named("semantic").mapper
    return task_of_dataset(names[0]).mapper
