"""Evaluations within a training: broken off where it is to stop, and the loss on test sets."""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import nn

from ..data import Dataset, build_mapper
from ..data.training_records import has_object
from .process import held_back
from .training_state import untouched_random_state

logger = logging.getLogger(__name__)

# Training-time changes of the images, turned off.
_PLAIN_INPUT: dict[str, Any] = {
    "RANDOM_FLIP": "none", "RESIZE": "shortest_edge", "COLOR_AUG_SSD": False, "RANDOM_TURN": False,
    "BLUR_SIGMA": 0.0, "NOISE_SIGMA": 0.0, "COPY_PASTE": 0.0, "MOSAIC": 0.0,
}  # fmt: skip


class EvaluationStopped(Exception):
    """An evaluation was broken off because the training is to stop."""


_check: ContextVar[Callable[[], None]] = ContextVar("_check", default=lambda: None)


@contextlib.contextmanager
def interruptible(check: Callable[[], None]) -> Iterator[None]:
    """Let evaluations within call ``check`` before each batch; what it raises ends them.

    A context and no argument: a ``test`` that a subclass overrides need not pass it on.
    """
    token = _check.set(check)
    try:
        yield
    finally:
        _check.reset(token)


def check_stop() -> None:
    """Call what :func:`interruptible` was given, if anything."""
    _check.get()()


class InterruptibleLoader:
    """Batches for an evaluation, by workers that leave signals to this process.

    Before each batch :func:`~seg_plugins.engine.evaluating.check_stop` may end the evaluation.

    Args:
        loader: PyTorch's, with ``init_worker`` as ``worker_init_fn``.
    """

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        with held_back():
            batches = iter(self.loader)
        for batch in batches:
            check_stop()
            yield batch


# ------------------------------------------------------------------ training loss


@contextlib.contextmanager
def loss_mode(model: nn.Module) -> Iterator[None]:
    """Let a model return losses while its layers behave as in inference.

    Systems and heads decide by their own ``training`` flag; layers without parts (dropout, batch
    norm, ...) are in evaluation mode.
    """
    before = {module: module.training for module in model.modules()}
    model.train()
    for module in model.modules():
        if not any(True for _ in module.children()):
            module.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training


@torch.no_grad()
def validation_loss(cfg: CfgNode, model: nn.Module) -> dict[str, float]:
    """Mean losses over the images of ``DATASETS.TEST``, one image at a time in each process.

    Args:
        cfg: names datasets and test sizes.
        model: a system in training mode.

    Returns:
        ``validation/NAME`` of each loss and ``validation/total_loss``, the same in all processes.
    """
    plain = cfg.clone()
    plain.defrost()
    for key, value in _PLAIN_INPUT.items():
        plain.INPUT[key] = value
    plain.INPUT.CROP.ENABLED = False
    plain.INPUT.ELASTIC.SIGMA = 0.0
    plain.INPUT.MIN_SIZE_TRAIN = (cfg.INPUT.MIN_SIZE_TEST,)
    plain.INPUT.MAX_SIZE_TRAIN = cfg.INPUT.MAX_SIZE_TEST
    plain.DATASETS.TRAIN = cfg.DATASETS.TEST
    mapper = build_mapper(plain, True)
    names = cfg.DATASETS.TEST
    records = [r for name in names for r in Dataset.get(name).records if has_object(r)]
    if not records:
        logger.warning("TEST.LOSS: no image of DATASETS.TEST has an object that is no crowd")
        return {}
    rank, world_size = comm.get_rank(), comm.get_world_size()
    sums: dict[str, float] = {}
    count = 0
    with untouched_random_state(cfg.SEED), loss_mode(model):
        # Every process makes the same number of passes: losses exchange their divisors.
        for first in range(0, len(records), world_size):
            check_stop()
            own = first + rank
            sample = mapper(copy.deepcopy(records[own % len(records)]))
            losses = getattr(model, "module", model)([sample])
            if own < len(records):
                count += 1
                for name, value in losses.items():
                    sums[name] = sums.get(name, 0.0) + float(value)
    parts = comm.all_gather((count, sums))
    total = max(sum(c for c, _ in parts), 1)
    names = {name: None for _, part in parts for name in part}
    means = {f"validation/{n}": sum(p.get(n, 0.0) for _, p in parts) / total for n in names}
    return {**means, "validation/total_loss": sum(means.values())}
