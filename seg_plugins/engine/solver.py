"""What ``cfg.SOLVER`` chooses: optimizer, schedule, clipping, precision, parts of a batch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.solver import LRMultiplier, WarmupParamScheduler, build_lr_scheduler
from detectron2.utils import comm
from fvcore.common.param_scheduler import ParamScheduler
from torch import Tensor, nn

from ..config import ConfigError

# Normalisation layers of torch; timm's and Detectron2's derive from these or are listed by name.
NORM_LAYERS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm)

logger = logging.getLogger(__name__)

AMP_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
SCHEDULES = ("WarmupPolyLR", "WarmupMultiStepLR", "WarmupCosineLR")


class PolynomialSchedule(ParamScheduler):
    """``max(ending, (1 - progress) ** power)`` (DeepLab's "poly" policy).

    A function of progress alone: nothing is stored in checkpoints, so a run may be extended
    with a larger ``MAX_ITER``.
    """

    def __init__(self, power: float, ending: float) -> None:
        self.power, self.ending = power, ending

    def __call__(self, where: float) -> float:
        """Factor of the base learning rate at progress ``where`` in [0, 1]."""
        return max(self.ending, (1.0 - min(where, 1.0)) ** self.power)


def build_schedule(cfg: CfgNode, optimizer: torch.optim.Optimizer) -> Any:
    """The schedule ``SOLVER.LR_SCHEDULER_NAME``, one of :data:`SCHEDULES`."""
    solver = cfg.SOLVER
    if solver.LR_SCHEDULER_NAME not in SCHEDULES:
        raise ConfigError(
            f"SOLVER.LR_SCHEDULER_NAME {solver.LR_SCHEDULER_NAME} is not one of "
            f"{', '.join(SCHEDULES)}"
        )
    if solver.WARMUP_ITERS >= solver.MAX_ITER:
        logger.warning(
            "SOLVER.WARMUP_ITERS %d is as long as the run (SOLVER.MAX_ITER %d): the rate never "
            "reaches SOLVER.BASE_LR. Set SOLVER.WARMUP_ITERS %d",
            solver.WARMUP_ITERS, solver.MAX_ITER, solver.MAX_ITER // 10,
        )  # fmt: skip
    if solver.LR_SCHEDULER_NAME != "WarmupPolyLR":
        return build_lr_scheduler(cfg, optimizer)
    schedule: ParamScheduler = PolynomialSchedule(
        solver.POLY_LR_POWER, solver.POLY_LR_CONSTANT_ENDING
    )
    schedule = WarmupParamScheduler(
        schedule,
        solver.WARMUP_FACTOR,
        min(solver.WARMUP_ITERS / max(solver.MAX_ITER, 1), 1.0),
        solver.WARMUP_METHOD,
    )
    return LRMultiplier(optimizer, multiplier=schedule, max_iter=solver.MAX_ITER)


def set_iteration(schedule: Any, optimizer: torch.optim.Optimizer, iteration: int) -> None:
    """Give a resumed optimizer the rates of the configuration at a place in the schedule."""
    schedule.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
    schedule.last_epoch = iteration
    for group, rate in zip(optimizer.param_groups, schedule.get_lr(), strict=True):
        group["lr"] = rate


def parameter_groups(cfg: CfgNode, model: nn.Module) -> list[dict[str, Any]]:
    """Trainable parameters grouped by learning rate and weight decay.

    Weight decay: ``WEIGHT_DECAY_NORM`` for normalisation layers, ``WEIGHT_DECAY_BIAS`` for
    biases, else ``WEIGHT_DECAY``. Learning rate: ``BASE_LR`` times ``BIAS_LR_FACTOR`` for biases
    times the factor in ``LR_FACTORS`` of the longest matching name prefix.

    Raises:
        ConfigError: a prefix in ``LR_FACTORS`` matches no parameter.
    """
    solver = cfg.SOLVER
    factors = _rate_factors(solver.LR_FACTORS)
    used: set[str] = set()
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    seen: set[nn.Parameter] = set()
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or parameter in seen:
                continue
            seen.add(parameter)
            rate, decay = solver.BASE_LR, solver.WEIGHT_DECAY
            if isinstance(module, NORM_LAYERS):
                decay = solver.WEIGHT_DECAY_NORM
            elif name == "bias":
                rate *= solver.BIAS_LR_FACTOR
                if solver.WEIGHT_DECAY_BIAS is not None:
                    decay = solver.WEIGHT_DECAY_BIAS
            full = f"{module_name}.{name}".lstrip(".")  # the model itself has no name
            prefixes = [p for p in factors if full == p or full.startswith(p + ".")]
            if prefixes:
                longest = max(prefixes, key=len)
                rate *= factors[longest]
                used.update(prefixes)
            groups.setdefault((rate, decay), []).append(parameter)
    unused = sorted(set(factors) - used)
    if unused:
        parts = sorted({name.split(".")[0] for name, _ in model.named_parameters()})
        raise ConfigError(
            f"SOLVER.LR_FACTORS: no trainable parameter starts with {', '.join(unused)}. "
            f"The model's parts: {', '.join(parts)}"
        )
    return [
        {"params": parameters, "lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


def _rate_factors(pairs: Sequence[Any]) -> dict[str, float]:
    factors: dict[str, float] = {}
    for pair in pairs:
        try:
            prefix, factor = pair
            factors[str(prefix)] = float(factor)
        except (TypeError, ValueError):
            continue  # one name is missing below
    if len(factors) != len(pairs) or any(factor < 0 for factor in factors.values()):
        raise ConfigError(
            f"SOLVER.LR_FACTORS {list(pairs)} should be pairs of a name and a factor of at least "
            "0, each name once: [['backbone', 0.1], ['sem_seg_head', 1.0]]"
        )
    return factors


def _sgd(cfg: CfgNode, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    optimizer = torch.optim.SGD(
        groups,
        lr=cfg.SOLVER.BASE_LR,
        momentum=cfg.SOLVER.MOMENTUM,
        nesterov=cfg.SOLVER.NESTEROV,
        fused=True,
    )
    if cfg.SOLVER.MOMENTUM:
        # A first step that is left out would otherwise keep whatever lies in new memory.
        for group in optimizer.param_groups:
            for p in group["params"]:
                optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
    return optimizer


def _adamw(cfg: CfgNode, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=cfg.SOLVER.BASE_LR, fused=True)


OPTIMIZERS: dict[str, Callable[[CfgNode, list[dict[str, Any]]], torch.optim.Optimizer]] = {
    "SGD": _sgd,
    "AdamW": _adamw,
}


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer ``SOLVER.OPTIMIZER`` over :func:`parameter_groups`.

    Fused: it can be told on the device to leave a step out, and needs one kernel for all
    parameters.
    """
    name = cfg.SOLVER.OPTIMIZER
    if name not in OPTIMIZERS:
        raise ConfigError(f"SOLVER.OPTIMIZER {name} is not one of {', '.join(OPTIMIZERS)}")
    return OPTIMIZERS[name](cfg, parameter_groups(cfg, model))


def build_clip(cfg: CfgNode) -> Callable[[list[Tensor], Tensor], None] | None:
    """The gradient clipping of ``SOLVER.CLIP_GRADIENTS``, or None where it is off.

    ``CLIP_TYPE``: ``value`` limits each number, ``norm`` the norm of each parameter's gradient
    (both as in Detectron2), ``full_model`` the norm of all gradients together.

    Returns:
        A function of the gradients, changed in place, and their total 2-norm.

    Raises:
        ConfigError: an unknown type, or a norm other than 2 with ``full_model``.
    """
    options = cfg.SOLVER.CLIP_GRADIENTS
    if not options.ENABLED:
        return None
    limit, order = float(options.CLIP_VALUE), float(options.NORM_TYPE)

    def by_value(gradients: list[Tensor], _: Tensor) -> None:
        torch._foreach_clamp_min_(gradients, -limit)
        torch._foreach_clamp_max_(gradients, limit)

    def by_norm(gradients: list[Tensor], _: Tensor) -> None:
        norms = torch._foreach_norm(gradients, order)
        torch._foreach_mul_(gradients, [(limit / (n + 1e-6)).clamp(max=1.0) for n in norms])

    def by_total_norm(gradients: list[Tensor], norm: Tensor) -> None:
        torch._foreach_mul_(gradients, (limit / (norm + 1e-6)).clamp(max=1.0))

    types = {"value": by_value, "norm": by_norm, "full_model": by_total_norm}
    if options.CLIP_TYPE not in types:
        raise ConfigError(
            f"SOLVER.CLIP_GRADIENTS.CLIP_TYPE {options.CLIP_TYPE} is not one of {', '.join(types)}"
        )
    if options.CLIP_TYPE == "full_model" and order != 2:
        raise ConfigError(
            f"SOLVER.CLIP_GRADIENTS.NORM_TYPE {order:g}: CLIP_TYPE full_model takes 2.0"
        )
    return types[options.CLIP_TYPE]


def amp_dtype(cfg: CfgNode) -> torch.dtype | None:
    """The autocast type of ``SOLVER.AMP``, or None for full precision.

    Raises:
        ConfigError: an unknown name, or float16 on a CPU, which has no loss scaling there.
    """
    amp = cfg.SOLVER.AMP
    if not amp.ENABLED:
        return None
    if amp.DTYPE not in AMP_DTYPES:
        raise ConfigError(f"SOLVER.AMP.DTYPE {amp.DTYPE} is not one of {', '.join(AMP_DTYPES)}")
    if amp.DTYPE == "float16" and cfg.MODEL.DEVICE == "cpu":
        raise ConfigError("SOLVER.AMP.DTYPE float16 needs a GPU: use bfloat16 on the CPU")
    if cfg.MODEL.DEVICE == "cpu" and not has_fast_bfloat16():
        logger.warning(
            "SOLVER.AMP: this processor has no bfloat16 instructions and would be many times "
            "slower with them than without: computing in float32"
        )
        return None
    return AMP_DTYPES[amp.DTYPE]


def has_fast_bfloat16() -> bool:
    """Whether oneDNN, which computes convolutions on the CPU, has bfloat16 kernels for this one.

    Elsewhere PyTorch still computes in it, many times as slowly as in float32.
    """
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def accumulation(cfg: CfgNode) -> int:
    """``SOLVER.ACCUMULATE``, checked.

    Raises:
        ConfigError: fewer than one part, or more parts than a process has images.
    """
    parts, images = cfg.SOLVER.ACCUMULATE, cfg.SOLVER.IMS_PER_BATCH // comm.get_world_size()
    if not 1 <= parts <= max(images, 1):
        raise ConfigError(
            f"SOLVER.ACCUMULATE {parts} should be from 1 to {images}, the images of a process"
        )
    return int(parts)


@dataclass(frozen=True)
class StepOptions:
    """How iterations are made.

    Attributes:
        dtype: autocast type or None; float16 scales the loss.
        accumulate: parts that a process's batch is taken in, one after the other.
        clip: changes gradients in place, given them and their total norm.
        max_skips: batches with a loss or gradient that is not finite to leave out before the
            training stops.
        read_period: iterations between two lines of the log.
        delay: iterations after which losses are read; None: 1 on a GPU, else 0.
    """

    dtype: torch.dtype | None = None
    accumulate: int = 1
    clip: Callable[[list[Tensor], Tensor], None] | None = None
    max_skips: int = 0
    read_period: int = 20
    delay: int | None = None


def build_step_options(cfg: CfgNode) -> StepOptions:
    """The :class:`StepOptions` of a configuration.

    Raises:
        ConfigError: see :func:`amp_dtype`, :func:`accumulation` and :func:`build_clip`.
    """
    return StepOptions(
        dtype=amp_dtype(cfg),
        accumulate=accumulation(cfg),
        clip=build_clip(cfg),
        max_skips=cfg.SOLVER.MAX_SKIPPED_BATCHES,
        read_period=cfg.LOG_PERIOD,
    )
