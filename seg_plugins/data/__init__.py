"""Datasets, mappers and augmentations."""

from .build import MAPPER_REGISTRY, build_mapper
from .datasets.catalogue import register_datasets
from .errors import DatasetError
from .semantic_mapper import SemanticMapper

__all__ = [
    "MAPPER_REGISTRY",
    "DatasetError",
    "SemanticMapper",
    "build_mapper",
    "register_datasets",
]
