"""Settings of a run that contradict each other: refused, or put right and told."""

from __future__ import annotations

import logging
import math

from detectron2.config import CfgNode
from detectron2.utils import comm

from ...config import ConfigError, Origin
from ...data.training_records import training_size
from ..solver import accumulation, amp_dtype, build_clip

logger = logging.getLogger(__name__)

# Warm-up takes at most this part of a run, unless the user sets it.
WARMUP_PART = 10
# A batch this many times larger or smaller than that of BASE_LR is worth a line.
FAR = 2.0


def check_training(cfg: CfgNode) -> None:
    """Check what a training needs, and whether its settings agree.

    Raises:
        ConfigError: two that contradict each other, or one that changes nothing.
    """
    solver = cfg.SOLVER
    if not cfg.DATASETS.TRAIN:
        raise ConfigError(
            "DATASETS.TRAIN is empty: name a dataset, DATASETS.TRAIN \"('shapes_train',)\", or "
            "describe one of your own: DATASETS.CUSTOM FILE"
        )
    # Detectron2 scales the batch from a reference of its own to the processes that there are.
    processes = solver.REFERENCE_WORLD_SIZE or comm.get_world_size()
    if solver.IMS_PER_BATCH % processes:
        raise ConfigError(
            f"SOLVER.IMS_PER_BATCH {solver.IMS_PER_BATCH} does not divide among {processes} "
            f"processes: set a multiple of {processes}"
        )
    if solver.NESTEROV and solver.OPTIMIZER == "SGD" and not solver.MOMENTUM:
        raise ConfigError("SOLVER.NESTEROV True needs SOLVER.MOMENTUM above 0, e.g. 0.9")
    if not solver.REFERENCE_WORLD_SIZE:
        accumulation(cfg)
    amp_dtype(cfg)
    build_clip(cfg)
    _check_evaluations(cfg)


def _check_evaluations(cfg: CfgNode) -> None:
    patience, period = cfg.SOLVER.EARLY_STOPPING.PATIENCE, cfg.TEST.EVAL_PERIOD
    if not cfg.DATASETS.TEST:
        for key, value in (
            ("SOLVER.EARLY_STOPPING.PATIENCE", patience),
            ("TEST.BEST_METRIC", cfg.TEST.BEST_METRIC),
            ("TEST.LOSS", cfg.TEST.LOSS),
        ):
            if value:
                raise ConfigError(
                    f"{key} {value} needs an evaluation, and DATASETS.TEST is empty: name a "
                    f"dataset there, or set {key} {type(value)()!r}"
                )
        logger.info("DATASETS.TEST is empty: nothing is evaluated")
        return
    if patience and (patience + 1) * (period or cfg.SOLVER.MAX_ITER) > cfg.SOLVER.MAX_ITER:
        logger.warning(
            "SOLVER.EARLY_STOPPING.PATIENCE %d cannot stop a run of SOLVER.MAX_ITER %d with "
            "TEST.EVAL_PERIOD %d: it takes %d evaluations on the way",
            patience, cfg.SOLVER.MAX_ITER, period, patience + 1,
        )  # fmt: skip
    if period > cfg.SOLVER.MAX_ITER:
        logger.info(
            "TEST.EVAL_PERIOD %d is longer than the run of %d: the evaluation is at its end",
            period, cfg.SOLVER.MAX_ITER,
        )  # fmt: skip


def apply_epochs(cfg: CfgNode, origin: Origin) -> None:
    """Turn ``SOLVER.EPOCHS`` into ``MAX_ITER``, with ``STEPS`` at the same parts of the run.

    An epoch is as many samples as there are images to draw from. Where a sampler repeats the
    images of rare classes, that is less than one round of it: the run is as long as without
    repeats, and shows the images of frequent classes less often.

    A ``MAX_ITER`` that the user gives replaces the epochs of a configuration that was there
    before. EPOCHS becomes 0: config.yaml tells the iterations, whatever the data become.

    Raises:
        ConfigError: the user gives both.
        DatasetError: see :func:`~seg_plugins.data.training_records.training_records`.
    """
    solver, epochs = cfg.SOLVER, cfg.SOLVER.EPOCHS
    if not epochs or not cfg.DATASETS.TRAIN:
        return
    solver.EPOCHS = 0.0
    if origin.by_user("SOLVER.MAX_ITER"):
        if origin.by_user("SOLVER.EPOCHS"):
            raise ConfigError(
                f"SOLVER.EPOCHS {epochs:g} and SOLVER.MAX_ITER {solver.MAX_ITER} both say how long "
                "the run is: give one of them"
            )
        return
    images = training_size(cfg)
    iterations = max(math.ceil(epochs * images / solver.IMS_PER_BATCH), 1)
    if not origin.by_user("SOLVER.STEPS"):
        part = iterations / solver.MAX_ITER
        solver.STEPS = tuple(sorted({max(round(step * part), 1) for step in solver.STEPS}))
    logger.info(
        "SOLVER.EPOCHS %g of %d images in batches of %d: SOLVER.MAX_ITER %d",
        epochs, images, solver.IMS_PER_BATCH, iterations,
    )  # fmt: skip
    solver.MAX_ITER = iterations


def complete_schedule(cfg: CfgNode, origin: Origin) -> None:
    """Fit warm-up and steps to the length of the run, where they are not the user's.

    Raises:
        ConfigError: the user's lie outside the run.
    """
    _fit_warmup(cfg, origin)
    if cfg.SOLVER.LR_SCHEDULER_NAME == "WarmupMultiStepLR":
        _fit_steps(cfg, origin)


def _fit_warmup(cfg: CfgNode, origin: Origin) -> None:
    solver, key = cfg.SOLVER, "SOLVER.WARMUP_ITERS"
    part = solver.MAX_ITER // WARMUP_PART
    # A single iteration is a trial of everything else: nothing can be warmed up in it.
    if origin.by_user(key) and solver.MAX_ITER > 1:
        if solver.WARMUP_ITERS >= solver.MAX_ITER:
            raise ConfigError(
                f"{key} {solver.WARMUP_ITERS} is as long as the run (SOLVER.MAX_ITER "
                f"{solver.MAX_ITER}), so the rate would never reach SOLVER.BASE_LR: set {key} "
                f"{part}, or a longer run"
            )
        return
    if part < solver.WARMUP_ITERS:
        logger.warning(
            "%s %d is more than a tenth of the run (SOLVER.MAX_ITER %d) and becomes %d; %s given "
            "with the run stays as it is",
            key, solver.WARMUP_ITERS, solver.MAX_ITER, part, key,
        )  # fmt: skip
        solver.WARMUP_ITERS = part


def _fit_steps(cfg: CfgNode, origin: Origin) -> None:
    solver, key = cfg.SOLVER, "SOLVER.STEPS"
    steps = tuple(solver.STEPS)
    if list(steps) != sorted(set(steps)) or any(step <= 0 for step in steps):
        raise ConfigError(f"{key} {steps} should be iterations above 0 in rising order")
    inside = tuple(step for step in steps if step < solver.MAX_ITER)
    if inside == steps:
        return
    if origin.by_user(key):
        raise ConfigError(
            f"{key} {steps}: the run ends at SOLVER.MAX_ITER {solver.MAX_ITER}. Set {key} "
            f'"{inside}", or a longer run'
        )
    logger.warning(
        "%s %s becomes %s: the run ends at SOLVER.MAX_ITER %d",
        key, steps, inside, solver.MAX_ITER,
    )  # fmt: skip
    solver.STEPS = inside


def tell_rate(cfg: CfgNode, origin: Origin) -> None:
    """Warn where the batch is far from the one that comes with ``SOLVER.BASE_LR``."""
    solver = cfg.SOLVER
    batch = origin.beside("SOLVER.BASE_LR", "SOLVER.IMS_PER_BATCH")
    ratio = solver.IMS_PER_BATCH / batch
    if solver.REFERENCE_BATCH or 1 / FAR < ratio < FAR:
        return
    logger.warning(
        "SOLVER.IMS_PER_BATCH is %d, and SOLVER.BASE_LR %g comes with batches of %d. For the usual "
        "rule, a rate in proportion to the batch, set SOLVER.REFERENCE_BATCH %d (or SOLVER.BASE_LR "
        "%g)",
        solver.IMS_PER_BATCH, solver.BASE_LR, batch, batch, solver.BASE_LR * ratio,
    )  # fmt: skip
