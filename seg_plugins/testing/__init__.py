"""Contract tests for parts of your own: each function asserts what the package relies on.

They work in any test framework::

    from seg_plugins import load_config
    from seg_plugins.testing import check_semantic_head

    def test_my_head():
        check_semantic_head(load_config("my_head.yaml"))

This package's own parts are held against the same functions, over the registries.
"""

from .data import check_dataset, check_mapper
from .evaluator import check_evaluator
from .loss import check_loss
from .samples import instance_sample, semantic_sample
from .systems import check_instance_system, check_semantic_head

__all__ = [
    "check_dataset",
    "check_evaluator",
    "check_instance_system",
    "check_loss",
    "check_mapper",
    "check_semantic_head",
    "instance_sample",
    "semantic_sample",
]
