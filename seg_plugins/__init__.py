"""Segmentation plugins for Detectron2: importing this package registers everything in it.

    import seg_plugins                      # before detectron2
    cfg = seg_plugins.load_config("configs/camvid/deeplabv3plus_r18.yaml")

The names that become known to Detectron2 are listed in :mod:`seg_plugins.registration`, the
configuration keys in :mod:`seg_plugins.config`.
"""

import sys

__version__ = "0.1.0"
__all__ = [
    "SegPluginsError",
    "add_seg_config",
    "get_cfg",
    "get_config_file",
    "load_config",
    "register_all",
]


def _is_started_by_python_m() -> bool:
    """Whether this is `python -m seg_plugins`: the command runs this file again if it needs it.

    While Python looks for the module, `sys.argv` is "-m" and what follows the module's name.
    """
    return sys.argv[:1] == ["-m"] and sys.orig_argv[-len(sys.argv)] == __name__


if not _is_started_by_python_m():
    from . import compat

    compat.install()
    try:
        from .config import add_seg_config, get_cfg, get_config_file, load_config
    except ModuleNotFoundError as error:
        if error.name != "detectron2":
            raise
        raise ImportError(
            "seg_plugins is a collection of parts for Detectron2, which is not installed here. "
            "This command installs it:\n    seg-plugins install-detectron2",
            name="detectron2",
        ) from None
    from .io.errors import SegPluginsError
    from .plugins import load_entry_points
    from .registration import register_all

    register_all()
    load_entry_points()
