"""All keys together: Detectron2's default configuration and this package's."""

from __future__ import annotations

from collections.abc import Callable

from detectron2.config import CfgNode
from detectron2.config import get_cfg as _detectron2_get_cfg

from .data_keys import add_dataloader_keys, add_dataset_keys, add_input_keys
from .model_keys import add_model_keys
from .run_keys import add_run_keys, add_solver_keys, add_test_keys

_Adder = Callable[[CfgNode], None]
_own: list[_Adder] = []


def add_keys(function: _Adder) -> _Adder:
    """Let a part of your own have keys: a decorator for a function that adds them to a node.

    .. code-block:: python

        @add_keys
        def add_pyramid_keys(cfg):
            cfg.MODEL.PYRAMID = CfgNode({"BINS": [1, 2, 3, 6]})
    """
    _own.append(function)
    return function


def own_key_functions() -> int:
    """How many functions :func:`add_keys` knows: with one more, :func:`get_cfg` has other keys."""
    return len(_own)


def add_seg_config(cfg: CfgNode) -> None:
    """Add this package's keys, and those of :func:`add_keys`, with their defaults.

    Calling it twice changes nothing.

    Keys of Detectron2's DeepLab project keep their names and meanings, so that both
    ``add_deeplab_config`` and this function may be called, in either order.
    """
    add_model_keys(cfg.MODEL)
    add_input_keys(cfg.INPUT)
    add_dataset_keys(cfg.DATASETS)
    add_dataloader_keys(cfg.DATALOADER)
    add_solver_keys(cfg.SOLVER)
    add_test_keys(cfg.TEST)
    add_run_keys(cfg)
    for function in _own:
        extra = _groups(cfg)
        function(extra)
        _add_missing(cfg, extra)


def _groups(node: CfgNode) -> CfgNode:
    """The groups of keys, without the keys: what a function adds is told from what was there."""
    groups = {key: value for key, value in node.items() if isinstance(value, CfgNode)}
    return CfgNode({key: _groups(value) for key, value in groups.items()})


def _add_missing(node: CfgNode, extra: CfgNode) -> None:
    """What a function adds does not replace what is there: it may run twice."""
    for key, value in extra.items():
        if key not in node:
            node[key] = value
        elif isinstance(value, CfgNode):
            _add_missing(node[key], value)


def get_cfg() -> CfgNode:
    """Detectron2's default configuration with this package's keys."""
    cfg = _detectron2_get_cfg()
    add_seg_config(cfg)
    return cfg
