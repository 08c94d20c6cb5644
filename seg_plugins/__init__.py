"""Segmentation plugins for Detectron2: importing this package registers everything in it.

    import seg_plugins                      # before detectron2
    cfg = seg_plugins.load_config("configs/camvid/deeplabv3plus_r18.yaml")

The names that become known to Detectron2 are listed in :mod:`seg_plugins.registration`, the
configuration keys in :mod:`seg_plugins.config`.
"""

from . import compat

compat.install()

from .config import add_seg_config, get_cfg, get_config_file, load_config  # noqa: E402
from .io.errors import SegPluginsError  # noqa: E402
from .plugins import load_entry_points  # noqa: E402
from .registration import register_all  # noqa: E402

register_all()
load_entry_points()

__version__ = "0.1.0"
__all__ = [
    "SegPluginsError",
    "add_seg_config",
    "get_cfg",
    "get_config_file",
    "load_config",
    "register_all",
]
