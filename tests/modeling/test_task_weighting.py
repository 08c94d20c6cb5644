from __future__ import annotations

import math

from seg_plugins.config import ConfigError
from seg_plugins.modeling.task_weighting import UncertaintyWeighting, build_weighting

import pytest
import torch


def test_weights_are_those_of_the_paper():
    weighting = UncertaintyWeighting({"loss_a": "first"}, default="rest")
    with torch.no_grad():
        weighting.log_variance["first"].fill_(math.log(4))
        weighting.log_variance["rest"].fill_(math.log(0.5))
    losses = weighting(
        {"loss_a": torch.tensor(8.0), "b": torch.tensor(1.0), "c": torch.tensor(3.0)}
    )
    assert {name: round(loss.item(), 5) for name, loss in losses.items()} == {
        "loss_a": 2.0, "b": 2.0, "c": 6.0, "loss_uncertainty": round(math.log(2) / 2, 5),
    }  # fmt: skip


def test_losses_are_unchanged_at_the_start():
    losses = UncertaintyWeighting({"a": "first"}, "rest")({"a": torch.tensor(2.5)})
    assert losses["a"] == 2.5
    assert losses["loss_uncertainty"] == 0


def test_the_minimum_is_at_twice_the_loss():
    """d/ds (exp(-s) L + s / 2) = 0 at exp(s) = 2 L."""
    weighting = UncertaintyWeighting({}, "all")
    with torch.no_grad():
        weighting.log_variance["all"].fill_(math.log(2 * 0.7))
    sum(weighting({"a": torch.tensor(0.3), "b": torch.tensor(0.4)}).values()).backward()
    assert abs(weighting.log_variance["all"].grad.item()) < 1e-6


def test_choice():
    assert build_weighting("fixed", {}, "rest") is None
    with pytest.raises(ConfigError, match="LOSS_WEIGHTING must be fixed or uncertainty"):
        build_weighting("learned", {}, "rest")
