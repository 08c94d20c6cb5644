"""Datasets, mappers and augmentations."""

from .build import MAPPER_REGISTRY, build_mapper, mapper_name, reads_masks
from .class_balance import class_weights
from .dataset import Dataset
from .datasets.catalogue import register_datasets
from .datasets.custom import apply_custom_dataset, register_custom_dataset
from .errors import DatasetError
from .image_mapper import generator
from .instance_mapper import InstanceMapper
from .panoptic_mapper import PanopticMapper
from .semantic_mapper import SemanticMapper
from .weight_map import border_weights

__all__ = [
    "MAPPER_REGISTRY",
    "Dataset",
    "DatasetError",
    "InstanceMapper",
    "PanopticMapper",
    "SemanticMapper",
    "apply_custom_dataset",
    "border_weights",
    "build_mapper",
    "class_weights",
    "generator",
    "mapper_name",
    "reads_masks",
    "register_custom_dataset",
    "register_datasets",
]
