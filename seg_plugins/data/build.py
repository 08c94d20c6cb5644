"""Choosing the mapper that a configuration asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.data.build import (
    filter_images_with_only_crowd_annotations,
    print_instances_class_histogram,
)
from fvcore.common.registry import Registry

from ..tasks import task_named
from .augmentation_builder import ignore_label_of
from .dataset import Dataset, task_of_dataset
from .errors import DatasetError
from .multi_image import CopyPaste, Mosaic

__all__ = ["MAPPER_REGISTRY", "build_mapper", "mapper_name", "usable_records"]

MAPPER_REGISTRY = Registry("MAPPER")
MAPPER_REGISTRY.__doc__ = "Dataset mappers by name: called with a dict and a generator."


def build_mapper(cfg: CfgNode, is_train: bool) -> Any:
    """The mapper named in ``INPUT.MAPPER``; empty takes the one of the dataset's task.

    With ``INPUT.COPY_PASTE`` or ``INPUT.MOSAIC`` it is wrapped, in training.

    Raises:
        KeyError: there is no mapper of that name.
        ValueError: a wrapper that does not fit the mapper.
    """
    name = mapper_name(cfg)
    mapper = MAPPER_REGISTRY.get(name)(cfg, is_train=is_train)
    inputs = cfg.INPUT
    if not is_train or not (inputs.COPY_PASTE or inputs.MOSAIC):
        return mapper
    records = [record for name in cfg.DATASETS.TRAIN for record in Dataset.get(name).records]
    if inputs.COPY_PASTE:
        if name != "InstanceMapper" or inputs.MASK_FORMAT != "bitmask":
            raise ValueError("INPUT.COPY_PASTE needs InstanceMapper and INPUT.MASK_FORMAT bitmask")
        return CopyPaste(mapper, records, probability=inputs.COPY_PASTE)
    if name != "SemanticMapper":
        raise ValueError("INPUT.MOSAIC needs SemanticMapper")
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


def usable_records(names: Sequence[str], *, filter_empty: bool) -> list[dict[str, Any]]:
    """The records of several datasets, as Detectron2's ``get_detection_dataset_dicts`` has them.

    Args:
        names: registered datasets.
        filter_empty: leave out images without an object that is not a crowd, and say how many.

    Raises:
        DatasetError: nothing is left.
    """
    records = [record for name in names for record in Dataset.get(name).records]
    if not records:
        raise DatasetError(f"{', '.join(names)}: no sample")
    if "annotations" not in records[0]:
        return records
    usable = filter_images_with_only_crowd_annotations(records) if filter_empty else records
    if not usable:
        raise DatasetError(
            f"{', '.join(names)}: none of the {len(records)} images has an object that is not a "
            "crowd. Set DATALOADER.FILTER_EMPTY_ANNOTATIONS False to train on them all the same"
        )
    things = Dataset.get(names[0]).things
    if things:
        print_instances_class_histogram(usable, things.names)
    return usable
