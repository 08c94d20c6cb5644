"""Weights of several tasks' losses, learned with the model (Kendall et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..config import ConfigError
from .loss_terms import Losses

WEIGHTINGS = ("fixed", "uncertainty")


class UncertaintyWeighting(nn.Module):
    """Scales the losses of task t by exp(-s_t), and adds s_t / 2 so that s_t does not grow.

    s_t is the logarithm of the task's variance, a parameter that starts at 0: with the losses as
    they are (equations 7 and 10 of the paper).
    """

    def __init__(self, tasks: Mapping[str, str], default: str) -> None:
        """Set up a parameter for each task.

        Args:
            tasks: name of a loss -> its task.
            default: task of all other losses.
        """
        super().__init__()
        self.tasks, self.default = dict(tasks), default
        names = dict.fromkeys([*tasks.values(), default])
        self.log_variance = nn.ParameterDict({name: torch.zeros(()) for name in names})

    def forward(self, losses: Mapping[str, Tensor]) -> Losses:
        """The scaled losses, and ``loss_uncertainty``, the sum of s_t / 2 (it may be negative)."""
        weighted = Losses(losses)
        for name in losses:
            factor = torch.exp(-self.log_variance[self.tasks.get(name, self.default)])
            weighted[name] = weighted.loss(name).times(factor)
        weighted["loss_uncertainty"] = sum(self.log_variance.values()) / 2
        return weighted


def build_weighting(
    name: str, tasks: Mapping[str, str], default: str
) -> UncertaintyWeighting | None:
    """``MODEL.PANOPTIC_FPN.LOSS_WEIGHTING``; None leaves losses as they are.

    Raises:
        ConfigError: an unknown name.
    """
    if name not in WEIGHTINGS:
        raise ConfigError(
            f"MODEL.PANOPTIC_FPN.LOSS_WEIGHTING must be {' or '.join(WEIGHTINGS)}, not {name!r}"
        )
    return UncertaintyWeighting(tasks, default) if name == "uncertainty" else None
