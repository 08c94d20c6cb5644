"""From command-line arguments to a checked, frozen configuration, before anything is built."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from ..config import ConfigError, Origin, find_config, load_config
from ..data import apply_custom_dataset, build_mapper, class_weights
from ..data.doctor import check_before_training
from ..modeling.test_time.augmentation import check_test_time_augmentation
from ..plugins import import_parts, imports_of
from .checks.consistency import check_datasets, check_masks
from .checks.run_folder import check_output_dir, former_config, hold, log_changes
from .checks.settings import apply_epochs, check_training, complete_schedule, tell_rate
from .checks.values import check_values
from .console import quiet
from .own_data import fit_to_data, own_config, plan_evaluations
from .process import be_deterministic, keep_freed_memory, use_available_device

PACKAGE_LOGGER = logging.getLogger("seg_plugins")
logger = logging.getLogger(__name__)


def setup(args: argparse.Namespace) -> CfgNode:
    """Load the configuration, complete and check it, prepare ``OUTPUT_DIR`` and the log.

    Raises:
        ConfigError: the file, a key or a value is wrong, two values contradict each other, or
            ``OUTPUT_DIR`` holds another run; the message names the fix.
        DatasetError: a dataset of ``DATASETS.CUSTOM`` or a label to be counted is not readable.
    """
    with _log_held_back() as records:
        import_parts(getattr(args, "imports", ()))  # anew in a process of its own
        if "IMPORTS" in list(args.opts or ())[::2]:
            raise ConfigError("IMPORTS is a record of what --import named: give --import itself")
        _choose_config(args)
        cfg = load_config(args.config_file, args.opts)
        use_available_device(cfg, args)
        check_values(cfg)
        apply_custom_dataset(cfg)
        origin = Origin(args.config_file, args.opts)
        fits_data = cfg.INPUT.FIT_TO_DATA
        if fits_data:
            fit_to_data(cfg, origin)
        if not args.eval_only:
            apply_epochs(cfg, origin)
            if fits_data:
                plan_evaluations(cfg, origin)
            check_training(cfg)
            complete_schedule(cfg, origin)
            tell_rate(cfg, origin)
        if comm.is_main_process() and not (args.resume or args.eval_only):
            check_output_dir(Path(cfg.OUTPUT_DIR))
        check_test_time_augmentation(cfg)
        check_datasets(cfg)  # which takes the longest, so it comes last
        if not args.eval_only:
            check_masks(cfg)
            build_mapper(cfg, is_train=True)  # tells values of INPUT that do not fit together
            if comm.is_main_process():
                check_before_training(cfg)
        comm.synchronize()
        former = former_config(Path(cfg.OUTPUT_DIR)) if args.resume else {}
        _complete(cfg, args, former)
        log_changes(former, cfg)
    cfg.freeze()
    if cfg.DETERMINISTIC:
        be_deterministic()
    if cfg.MODEL.DEVICE == "cpu":
        keep_freed_memory()
    # As Detectron2 asks for them below: it keeps what these calls give.
    folder, rank = cfg.OUTPUT_DIR, comm.get_rank()
    setup_logger(folder, distributed_rank=rank)
    for name in ("fvcore", PACKAGE_LOGGER.name):
        setup_logger(folder, distributed_rank=rank, name=name)
    quiet()
    default_setup(cfg, args)
    if comm.is_main_process():
        hold(Path(cfg.OUTPUT_DIR))
    for record in records:
        PACKAGE_LOGGER.handle(record)
    return cfg


def _choose_config(args: argparse.Namespace) -> None:
    """Put ``--data`` into the options and find the configuration."""
    data = getattr(args, "data", "")
    args.opts = list(args.opts or ())
    if data and "DATASETS.CUSTOM" in args.opts[::2]:
        raise ConfigError(f"--data {data} and DATASETS.CUSTOM say the same: give one of them")
    if not (data or args.config_file):
        raise ConfigError(
            "Give --config-file FILE, or --data FILE for images of your own "
            "(datasets/custom.example.yaml shows how to describe them)"
        )
    args.config_file = str(find_config(args.config_file or own_config(data)))
    if data:
        args.opts = ["DATASETS.CUSTOM", data, *args.opts]


@contextlib.contextmanager
def _log_held_back() -> Iterator[list[logging.LogRecord]]:
    """Collect the package's log: the file it goes to exists only once all checks have passed."""
    holder = MemoryHandler(capacity=10_000, flushLevel=logging.CRITICAL + 1)
    PACKAGE_LOGGER.addHandler(holder)
    PACKAGE_LOGGER.setLevel(logging.INFO)
    try:
        yield holder.buffer
    finally:
        PACKAGE_LOGGER.removeHandler(holder)


def _complete(cfg: CfgNode, args: argparse.Namespace, former: Mapping[str, Any]) -> None:
    """Replace what is left open by values, so that config.yaml tells all that is needed."""
    cfg.IMPORTS = imports_of(cfg)
    _scale_rate(cfg)
    _limit_workers(cfg)
    if cfg.SEED < 0 and "SEED" in former:
        cfg.SEED = former["SEED"]
    if cfg.SEED < 0:
        # A run can be repeated only when its seed is known. All processes take the same.
        cfg.SEED = comm.shared_random_seed() % 2**31
    head = cfg.MODEL.SEM_SEG_HEAD
    scheme = head.CLASS_WEIGHTS
    if not isinstance(scheme, str):
        return
    if scheme == "none" or args.eval_only:  # weights serve the loss only
        head.CLASS_WEIGHTS = None
        return
    if len(cfg.DATASETS.TRAIN) != 1:
        raise ConfigError(
            f"MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS {scheme} counts one training set, DATASETS.TRAIN "
            f"names {len(cfg.DATASETS.TRAIN)}: give the weights as a list"
        )
    try:
        weights = class_weights(cfg.DATASETS.TRAIN[0], scheme)
    except ValueError as error:
        raise ConfigError(f"MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS: {error}") from None
    head.CLASS_WEIGHTS = [round(float(w), 4) for w in weights]
    logger.info("Class weights (%s of %s): %s", scheme, cfg.DATASETS.TRAIN[0], head.CLASS_WEIGHTS)


def _limit_workers(cfg: CfgNode) -> None:
    """No more data workers than cores: more only get in each other's way, and change nothing."""
    affinity = getattr(os, "sched_getaffinity", None)  # not everywhere
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    if cores < cfg.DATALOADER.NUM_WORKERS:
        logger.info(
            "DATALOADER.NUM_WORKERS %d becomes %d, the cores of this process",
            cfg.DATALOADER.NUM_WORKERS, cores,
        )  # fmt: skip
        cfg.DATALOADER.NUM_WORKERS = cores


def _scale_rate(cfg: CfgNode) -> None:
    """Multiply BASE_LR by IMS_PER_BATCH / REFERENCE_BATCH, once."""
    solver = cfg.SOLVER
    if solver.REFERENCE_BATCH in (0, solver.IMS_PER_BATCH):
        return
    rate = solver.BASE_LR * solver.IMS_PER_BATCH / solver.REFERENCE_BATCH
    logger.info(
        "SOLVER.BASE_LR %g for a batch of %d becomes %g for %d",
        solver.BASE_LR, solver.REFERENCE_BATCH, rate, solver.IMS_PER_BATCH,
    )  # fmt: skip
    # config.yaml then holds the rate that was used, and would not scale it again.
    solver.BASE_LR, solver.REFERENCE_BATCH = rate, solver.IMS_PER_BATCH
