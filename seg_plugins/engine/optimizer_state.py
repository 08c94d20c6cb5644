"""An optimizer's state by parameter name, so that it outlives changes of the configuration."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)


def optimizer_state(
    optimizer: torch.optim.Optimizer, names: Mapping[nn.Parameter, str]
) -> dict[str, Any]:
    """torch's ``state_dict`` with the parameters' names and the optimizer's kind.

    Returns:
        ``state``, ``param_groups``, ``names`` (index -> name) and ``kind``.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return {
        **optimizer.state_dict(),
        "names": [names[p] for p in parameters],
        "kind": type(optimizer).__name__,
    }


def load_optimizer(
    optimizer: torch.optim.Optimizer, saved: Mapping[str, Any], names: Mapping[nn.Parameter, str]
) -> None:
    """Give parameters back their momenta; rates and weight decay stay as configured.

    A parameter that is new or has another shape (another number of classes) starts without
    momentum, and so do all when the kind of optimizer has changed; both are logged.
    """
    kind = saved.get("kind", type(optimizer).__name__)
    if kind != type(optimizer).__name__:
        logger.warning(
            "SOLVER.OPTIMIZER was %s and is %s: starting without its momenta.",
            kind, type(optimizer).__name__,
        )  # fmt: skip
        return
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    # Checkpoints of Detectron2 know the order only.
    order = saved.get("names") or [names[p] for p in parameters]
    by_name = {order[int(i)]: values for i, values in saved["state"].items() if int(i) < len(order)}
    fresh = []
    for parameter in parameters:
        values = by_name.get(names[parameter])
        if not values:
            fresh.append(names[parameter])
        elif any(_misfit(value, parameter) for value in values.values()):
            fresh.append(f"{names[parameter]} (another shape)")
        else:
            optimizer.state[parameter] = {
                key: _placed(key, value, parameter) for key, value in values.items()
            }
    if fresh and by_name:
        logger.warning("Without momentum, as at the start: %s", ", ".join(fresh))


def _misfit(value: Any, parameter: nn.Parameter) -> bool:
    return torch.is_tensor(value) and value.dim() > 0 and value.shape != parameter.shape


def _placed(key: str, value: Any, parameter: nn.Parameter) -> Any:
    if not torch.is_tensor(value):
        return value
    if value.dim() == 0 and key == "step":
        return value.to(parameter.device, copy=True)
    result: Tensor = torch.empty_like(parameter)  # its memory format, which fused kernels expect
    return result.detach().copy_(value)
