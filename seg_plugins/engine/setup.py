"""From command-line arguments to a checked, frozen configuration, before anything is built."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.engine import default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from ..config import ConfigError, find_config, load_config
from .consistency import check_datasets
from .launch import use_available_device

logger = logging.getLogger(__name__)


def setup(args: argparse.Namespace) -> CfgNode:
    """Load the configuration, complete and check it, prepare ``OUTPUT_DIR`` and the log.

    Raises:
        ConfigError: the file, a key or a value is wrong, two values contradict each other, or
            ``OUTPUT_DIR`` holds another run; the message names the fix.
    """
    args.config_file = str(find_config(args.config_file))
    cfg = load_config(args.config_file, args.opts or ())
    notice = use_available_device(cfg, args)
    check_datasets(cfg)
    if cfg.SEED < 0:
        # A run can be repeated only when its seed is known: draw it here, so that it is written
        # down with the configuration. All processes take the same.
        cfg.SEED = comm.shared_random_seed() % 2**31
    if comm.is_main_process():
        _check_output_dir(Path(cfg.OUTPUT_DIR), args)
    comm.synchronize()
    cfg.freeze()
    default_setup(cfg, args)
    # Only now: a run that the checks stop leaves no log behind in OUTPUT_DIR.
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="seg_plugins")
    if notice:
        logger.warning(notice)
    return cfg


def _check_output_dir(folder: Path, args: argparse.Namespace) -> None:
    if args.resume or args.eval_only:
        return
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"OUTPUT_DIR {folder} is a file. Choose a folder: OUTPUT_DIR NAME")
    if folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(
            f"OUTPUT_DIR {folder} is not empty. Add --resume to continue the training in it, or "
            f"start a new one beside it: OUTPUT_DIR {_free_name(folder)}"
        )


def _free_name(folder: Path) -> Path:
    number = 2
    while folder.with_name(f"{folder.name}_{number}").exists():
        number += 1
    return folder.with_name(f"{folder.name}_{number}")
