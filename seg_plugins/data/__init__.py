"""Datasets, mappers and augmentations."""

from .border_weights import border_weights
from .build import MAPPER_REGISTRY, build_mapper, mapper_name, reads_masks
from .class_weights import class_weights
from .dataset import Dataset
from .datasets.catalogue import register_datasets
from .datasets.custom import apply_custom_dataset, register_custom_dataset
from .errors import DatasetError
from .image_mapper import generator
from .instance_mapper import InstanceMapper
from .panoptic_mapper import PanopticMapper
from .semantic_mapper import SemanticMapper

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
