"""An optimizer's state by parameter name, so that it outlives changes of the configuration."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .weights_layout import named, plain_name

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
        "names": [plain_name(names[p]) for p in parameters],
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
    order = saved.get("names")
    if order is None:
        # Checkpoints of Detectron2 know the order only.
        count = sum(len(group["params"]) for group in saved["param_groups"])
        if count != len(parameters):
            logger.warning(
                "The optimizer's state is one of %d parameters without their names, and %d are "
                "trained: starting without its momenta.", count, len(parameters),
            )  # fmt: skip
            return
        order = [plain_name(names[p]) for p in parameters]
    by_name = {order[int(i)]: values for i, values in saved["state"].items()}
    fresh = []
    for parameter in parameters:
        name = plain_name(names[parameter])
        values = by_name.pop(name, None)
        if not values:
            fresh.append(name)
        elif any(_misfit(value, parameter) for value in values.values()):
            fresh.append(f"{name} (another shape)")
        else:
            optimizer.state[parameter] = {
                key: _placed(key, value, parameter) for key, value in values.items()
            }
    if fresh and saved["state"]:
        logger.warning(
            "Without momentum, as at the start: %s (%d of %d parameters)",
            named(fresh), len(fresh), len(parameters),
        )  # fmt: skip
    if by_name:
        logger.info("Momenta of %d parameters that are not trained now were left out: %s",
                    len(by_name), named(by_name))  # fmt: skip


def _misfit(value: Any, parameter: nn.Parameter) -> bool:
    return torch.is_tensor(value) and value.dim() > 0 and value.shape != parameter.shape


def _placed(key: str, value: Any, parameter: nn.Parameter) -> Any:
    if not torch.is_tensor(value):
        return value
    if value.dim() == 0 and key == "step":
        return value.to(parameter.device, copy=True)
    result: Tensor = torch.empty_like(parameter)  # its memory format, which fused kernels expect
    return result.detach().copy_(value)
