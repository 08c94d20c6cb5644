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

__all__ = ["MAPPER_REGISTRY", "build_mapper", "mapper_name"]

MAPPER_REGISTRY = Registry("MAPPER")
MAPPER_REGISTRY.__doc__ = "Dataset mappers by name: called with a dict and a generator."


def build_mapper(cfg: CfgNode, is_train: bool) -> Any:
    """The mapper named in ``INPUT.MAPPER``; empty takes the one of the dataset's task.

    With ``INPUT.COPY_PASTE`` or ``INPUT.MOSAIC`` it is wrapped, in training.

    Raises:
        KeyError: there is no mapper of that name.
        ConfigError: a wrapper that does not fit the mapper.
    """
    name = mapper_name(cfg)
    mapper = MAPPER_REGISTRY.get(name)(cfg, is_train=is_train)
    inputs = cfg.INPUT
    if not is_train or not (inputs.COPY_PASTE or inputs.MOSAIC):
        return mapper
    records = [record for name in cfg.DATASETS.TRAIN for record in Dataset.get(name).records]
    if inputs.COPY_PASTE:
        if name != "InstanceMapper" or inputs.MASK_FORMAT != "bitmask":
            raise ConfigError("INPUT.COPY_PASTE needs InstanceMapper and INPUT.MASK_FORMAT bitmask")
        return CopyPaste(mapper, records, probability=inputs.COPY_PASTE)
    if name != "SemanticMapper":
        raise ConfigError("INPUT.MOSAIC needs SemanticMapper")
    return Mosaic(mapper, records, probability=inputs.MOSAIC, ignore_label=ignore_label_of(cfg))


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
