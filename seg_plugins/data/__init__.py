"""Datasets, mappers and augmentations."""

from .build import MAPPER_REGISTRY, build_mapper
from .datasets.catalogue import register_datasets
from .errors import DatasetError
from .instance_mapper import InstanceMapper
from .semantic_mapper import SemanticMapper

__all__ = [
    "MAPPER_REGISTRY",
    "DatasetError",
    "InstanceMapper",
    "SemanticMapper",
    "build_mapper",
    "register_datasets",
]
