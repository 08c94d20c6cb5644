"""An exponential moving average of the weights (Polyak averaging), which evaluation uses."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from detectron2.engine import HookBase
from torch import Tensor, nn

from .weights_layout import named, plain_name

logger = logging.getLogger(__name__)


class WeightAverage:
    """``average = d * average + (1 - d) * weights`` after each step; buffers are copied.

    d is ``decay``, but at first (1 + n) / (10 + n) in step n, so that the random start is
    forgotten.

    Args:
        model: what is averaged.
        decay: in [0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.average: dict[str, Tensor] = {}
        self.reset(model)

    def reset(self, model: nn.Module) -> None:
        """Begin with the model's present weights."""
        self.updates = 0
        self.average = {k: v.detach().clone() for k, v in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights after a step."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        learned = {name for name, _ in model.named_parameters()}
        averages, values = [], []
        for name, value in model.state_dict().items():
            if name in learned:
                averages.append(self.average[name])
                values.append(value)
            else:
                self.average[name].copy_(value)
        torch._foreach_lerp_(averages, values, 1 - decay)

    @contextlib.contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Let the model have the averaged weights within a block."""
        own = {k: v.detach().clone() for k, v in model.state_dict().items()}
        model.load_state_dict(self.average)
        try:
            yield
        finally:
            model.load_state_dict(own)

    def state_dict(self) -> dict[str, Any]:
        """Average and number of updates."""
        average = {plain_name(name): value for name, value in self.average.items()}
        return {"average": average, "updates": self.updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`state_dict`'s content; tensors of another shape keep their start."""
        self.updates = state["updates"]
        saved, fresh = state["average"], []
        for name, own in self.average.items():
            value = saved.get(plain_name(name))
            if value is not None and value.shape == own.shape:
                own.copy_(value)
            else:
                fresh.append(name)
        if fresh:
            logger.warning(
                "%d of %d averaged weights start anew, missing or of another size: %s",
                len(fresh), len(self.average), named(fresh),
            )  # fmt: skip


class AverageWeights(HookBase):
    """Updates a :class:`WeightAverage` after each step."""

    def __init__(self, average: WeightAverage, model: nn.Module) -> None:
        self.average, self.model = average, model

    def after_step(self) -> None:
        """Take in the new weights."""
        self.average.update(self.model)
