"""All keys together: Detectron2's default configuration and this package's."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.config import get_cfg as _detectron2_get_cfg

from .data_keys import add_dataloader_keys, add_dataset_keys, add_input_keys
from .model_keys import add_model_keys
from .run_keys import add_run_keys, add_solver_keys, add_test_keys


def add_seg_config(cfg: CfgNode) -> None:
    """Add this package's keys with their defaults; calling it twice changes nothing.

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


def get_cfg() -> CfgNode:
    """Detectron2's default configuration with this package's keys."""
    cfg = _detectron2_get_cfg()
    add_seg_config(cfg)
    return cfg
