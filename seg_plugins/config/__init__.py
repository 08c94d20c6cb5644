"""Configuration: every key this package adds to Detectron2's, and safe loading of YAML files."""

from .loading import (
    ConfigError,
    add_seg_config,
    config_root,
    find_config,
    get_cfg,
    get_config_file,
    load_config,
    merge_opts,
)

__all__ = [
    "ConfigError",
    "add_seg_config",
    "config_root",
    "find_config",
    "get_cfg",
    "get_config_file",
    "load_config",
    "merge_opts",
]
