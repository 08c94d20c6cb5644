"""Detectron2's training samplers, for the sample stream: which records, and how often each."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data.samplers import RepeatFactorTrainingSampler

from ..config import ConfigError
from .sample_order import SampleOrder
from .window_balance import balance_windows, is_balanced

__all__ = ["SAMPLERS", "random_subset", "repeat_factors", "sample_order", "subset_size"]

logger = logging.getLogger(__name__)

_ALL, _REPEAT, _SUBSET = (
    "TrainingSampler", "RepeatFactorTrainingSampler", "RandomSubsetTrainingSampler",
)  # fmt: skip
#: What ``DATALOADER.SAMPLER_TRAIN`` may be; the names are Detectron2's.
SAMPLERS = (_ALL, _REPEAT, _SUBSET)
# See sample_order: of its own, so that the subset is independent of the order.
_SUBSET_KEY = 3 * 2**32


def sample_order(
    cfg: CfgNode, records: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], SampleOrder]:
    """The records that ``DATALOADER.SAMPLER_TRAIN`` draws from, and their order.

    Args:
        cfg: with ``SEED`` and ``DATALOADER``.
        records: those of the training set.

    Raises:
        ConfigError: an unknown sampler, or one whose own key changes nothing or does not fit.
    """
    _check(cfg)
    loader = cfg.DATALOADER
    if loader.SAMPLER_TRAIN == _SUBSET:
        records = random_subset(records, loader.RANDOM_SUBSET_RATIO, cfg.SEED)
    if any(is_balanced(record) for record in records):
        if loader.SAMPLER_TRAIN == _REPEAT:
            raise ConfigError(
                f"DATALOADER.SAMPLER_TRAIN {_REPEAT} does not fit windows that are balanced by "
                f"class: set {_ALL}, or class_balanced false in the description"
            )
        records, factors = balance_windows(records)
        return records, SampleOrder(cfg.SEED, len(records), factors)
    if loader.SAMPLER_TRAIN != _REPEAT:
        return records, SampleOrder(cfg.SEED, len(records))
    factors = repeat_factors(records, loader.REPEAT_THRESHOLD, sqrt=loader.REPEAT_SQRT)
    logger.info(
        "%s: %d of %d images are repeated (DATALOADER.REPEAT_THRESHOLD %g), the rarest classes' "
        "%.3g times; a round of all images has %.0f samples",
        _REPEAT, np.count_nonzero(factors > 1), len(factors), loader.REPEAT_THRESHOLD,
        factors.max(), factors.sum(),
    )  # fmt: skip
    return records, SampleOrder(cfg.SEED, len(records), factors)


def _check(cfg: CfgNode) -> None:
    loader = cfg.DATALOADER
    name, ratio = loader.SAMPLER_TRAIN, loader.RANDOM_SUBSET_RATIO
    if name not in SAMPLERS:
        raise ConfigError(
            f"DATALOADER.SAMPLER_TRAIN {name} is not one of {', '.join(SAMPLERS)}. A sampler of "
            "your own takes a build_train_loader of your own (docs/training.md)"
        )
    if name == _REPEAT and not loader.REPEAT_THRESHOLD:
        raise ConfigError(
            f"DATALOADER.SAMPLER_TRAIN {_REPEAT} repeats nothing with DATALOADER.REPEAT_THRESHOLD "
            "0: set the share of images below which a class is rare, e.g. 0.001"
        )
    if (name == _SUBSET) != (ratio < 1):
        raise ConfigError(
            f"DATALOADER.RANDOM_SUBSET_RATIO {ratio:g} and DATALOADER.SAMPLER_TRAIN {name} do not "
            f"belong together: {_SUBSET} needs a ratio below 1, the others take all images (1.0)"
        )
    for key in ("COPY_PASTE", "MOSAIC"):
        if name == _SUBSET and cfg.INPUT[key]:
            raise ConfigError(
                f"INPUT.{key} {cfg.INPUT[key]:g} puts images of the whole training set into those "
                f"of DATALOADER.SAMPLER_TRAIN {_SUBSET}: set INPUT.{key} 0.0"
            )


def repeat_factors(
    records: Sequence[dict[str, Any]], threshold: float, *, sqrt: bool = True
) -> np.ndarray:
    """How often an epoch holds each record, by Detectron2's rule (LVIS, appendix B.2).

    With ``f_c`` the share of images that have class ``c``, a class's factor is
    ``max(1, sqrt(threshold / f_c))``, and an image's is the largest of its classes'.

    Args:
        records: with ``annotations``.
        threshold: share of images below which a class is rare, above 0.
        sqrt: take the root, as in LVIS; else ``max(1, threshold / f_c)``.

    Returns:
        (len(records),) floats of at least 1.

    Raises:
        ConfigError: a record without annotations.
    """
    without = [record for record in records if "annotations" not in record]
    if without:
        raise ConfigError(
            f"DATALOADER.SAMPLER_TRAIN {_REPEAT} counts the classes of annotations, and "
            f"{len(without)} of {len(records)} records have none, the first is "
            f"{without[0].get('file_name')}: set DATALOADER.SAMPLER_TRAIN {_ALL}"
        )
    rule = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency
    factors = np.asarray(rule(records, threshold), np.float64)
    # Version 0.6 has the root alone; the largest of squares is the square of the largest.
    return factors if sqrt else factors**2


def subset_size(cfg: CfgNode, size: int) -> int:
    """How many of the training set's `size` records the sampler draws from."""
    if cfg.DATALOADER.SAMPLER_TRAIN != _SUBSET:
        return size
    return int(size * cfg.DATALOADER.RANDOM_SUBSET_RATIO)


def random_subset(records: list[dict[str, Any]], ratio: float, seed: int) -> list[dict[str, Any]]:
    """A share of the records, in their order; those of a smaller ratio are among them.

    Args:
        records: to choose from.
        ratio: above 0, below 1; the number is rounded down, as in Detectron2.
        seed: non-negative integer below 2**32.

    Raises:
        ConfigError: there would be none.
    """
    count = int(len(records) * ratio)
    if not count:
        raise ConfigError(
            f"DATALOADER.RANDOM_SUBSET_RATIO {ratio:g} of {len(records)} images leaves none: set "
            f"{1 / len(records):.2g} or more"
        )
    rng = np.random.Generator(np.random.Philox(key=[seed + _SUBSET_KEY, 0]))
    chosen = np.sort(rng.permutation(len(records))[:count])
    logger.info("%s: %d of %d images, by SEED %d", _SUBSET, count, len(records), seed)
    return [records[i] for i in chosen]
