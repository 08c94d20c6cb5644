"""Parameter groups and schedules against hand-made numbers."""

from __future__ import annotations

import seg_plugins
from seg_plugins.config import ConfigError
from seg_plugins.engine.solver import build_optimizer, build_schedule, parameter_groups

import pytest
import torch
from torch import nn


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.head = nn.Conv2d(4, 2, 1)
        self.frozen = nn.Parameter(torch.zeros(1), requires_grad=False)


def config(**solver):
    cfg = seg_plugins.get_cfg()
    for key, value in solver.items():
        cfg.SOLVER[key] = value
    return cfg


def by_parameter(model, groups):
    names = {p: n for n, p in model.named_parameters()}
    return {
        names[p]: (round(g["lr"], 9), round(g["weight_decay"], 9))
        for g in groups
        for p in g["params"]
    }


def test_groups_follow_norm_bias_and_part():
    model = Tiny()
    cfg = config(
        BASE_LR=1.0, WEIGHT_DECAY=0.1, WEIGHT_DECAY_NORM=0.0, WEIGHT_DECAY_BIAS=0.02,
        BIAS_LR_FACTOR=2.0, LR_FACTORS=[["backbone", 0.1], ["backbone.0.weight", 0.5]],
    )  # fmt: skip
    assert by_parameter(model, parameter_groups(cfg, model)) == {
        "backbone.0.weight": (0.5, 0.1),
        "backbone.0.bias": (0.2, 0.02),
        "backbone.1.weight": (0.1, 0.0),
        "backbone.1.bias": (0.1, 0.0),
        "head.weight": (1.0, 0.1),
        "head.bias": (2.0, 0.02),
    }


def test_a_factor_without_parameters_is_an_error():
    with pytest.raises(ConfigError, match=r"starts with encoder.*backbone, frozen, head"):
        parameter_groups(config(LR_FACTORS=[["encoder", 0.1]]), Tiny())


def test_a_parameter_of_the_model_itself_has_a_factor():
    model = Tiny()
    model.scale = torch.nn.Parameter(torch.ones(()))
    cfg = config(BASE_LR=1.0, WEIGHT_DECAY=0.1, LR_FACTORS=[["scale", 0.25]])
    assert by_parameter(model, parameter_groups(cfg, model))["scale"] == (0.25, 0.1)


@pytest.mark.parametrize(
    "pairs",
    [["backbone"], [["backbone", "fast"]], [["backbone", -1.0]],
     [["backbone", 0.1], ["backbone", 0.2]], [["backbone", 0.1, 0.2]]],
)  # fmt: skip
def test_factors_that_are_no_pairs_are_refused(pairs):
    with pytest.raises(ConfigError, match=r"LR_FACTORS .* should be pairs of a name and a factor"):
        parameter_groups(config(LR_FACTORS=pairs), Tiny())


@pytest.mark.parametrize(("name", "kind"), [("SGD", torch.optim.SGD), ("AdamW", torch.optim.AdamW)])
def test_optimizers_by_name(name, kind):
    assert isinstance(build_optimizer(config(OPTIMIZER=name), Tiny()), kind)


def test_unknown_names_list_the_known():
    optimizer = torch.optim.SGD(Tiny().parameters(), lr=1.0)
    with pytest.raises(ConfigError, match="OPTIMIZER Magic is not one of SGD, AdamW"):
        build_optimizer(config(OPTIMIZER="Magic"), Tiny())
    with pytest.raises(ConfigError, match="LR_SCHEDULER_NAME Magic is not one of WarmupPolyLR"):
        build_schedule(config(LR_SCHEDULER_NAME="Magic"), optimizer)


def rates(cfg, iterations):
    optimizer = build_optimizer(cfg, Tiny())
    schedule = build_schedule(cfg, optimizer)
    seen = []
    for _ in range(iterations):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


def test_poly_schedule_with_warmup():
    cfg = config(
        LR_SCHEDULER_NAME="WarmupPolyLR", BASE_LR=2.0, MAX_ITER=10, WARMUP_ITERS=2,
        WARMUP_FACTOR=0.0, POLY_LR_POWER=0.9,
    )  # fmt: skip
    seen = rates(cfg, 10)
    # Linear from 0 to the schedule's value at the end of warm-up, then (1 - t) ** 0.9.
    assert seen[0] == 0.0
    assert seen[1] == pytest.approx(0.5 * 2 * 0.8**0.9)
    assert seen[2:] == pytest.approx([2 * (1 - i / 10) ** 0.9 for i in range(2, 10)])


def test_poly_schedule_survives_an_extension():
    """Past its end (a checkpoint resumed with a larger MAX_ITER) it is a number, never NaN."""
    cfg = config(LR_SCHEDULER_NAME="WarmupPolyLR", BASE_LR=1.0, MAX_ITER=4, WARMUP_ITERS=0,
                 POLY_LR_CONSTANT_ENDING=0.01)  # fmt: skip
    assert rates(cfg, 6)[3:] == pytest.approx([0.25**0.9, 0.01, 0.01])


def test_step_schedule():
    cfg = config(BASE_LR=1.0, MAX_ITER=6, STEPS=(2, 4), WARMUP_ITERS=0, GAMMA=0.1)
    assert rates(cfg, 6) == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
