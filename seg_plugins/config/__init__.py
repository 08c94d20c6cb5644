"""Configuration: every key this package adds to Detectron2's, and safe loading of YAML files.

The keys stand, each with its default and its meaning above it, in ``model_keys.py`` and the files
that it names (MODEL), ``data_keys.py`` (INPUT, DATASETS, DATALOADER) and ``run_keys.py`` (SOLVER,
TEST, the rest). The reference of the documentation is made from these comments.
"""

from .errors import ConfigError
from .files import config_root, find_config, get_config_file
from .keys import add_keys, add_seg_config, get_cfg
from .loading import config_from_text, get_value, load_config, merge_opts, module_of_import
from .origin import Origin

__all__ = [
    "ConfigError",
    "Origin",
    "add_keys",
    "add_seg_config",
    "config_from_text",
    "config_root",
    "find_config",
    "get_cfg",
    "get_config_file",
    "get_value",
    "load_config",
    "merge_opts",
    "module_of_import",
]
