"""One step of training, as every shipped configuration must be able to take."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.utils.events import EventStorage
from torch import nn


def training_step(model: nn.Module, batch: list[dict[str, Any]]) -> torch.Tensor:
    """The sum of the losses, after the weights were changed by it."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with EventStorage():
        loss = sum(model.train()(batch).values())
    loss.backward()
    optimizer.step()
    return loss.detach()
