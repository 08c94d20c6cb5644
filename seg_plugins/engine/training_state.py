"""What a checkpoint holds beside the model: optimizer, EMA of the weights, random states."""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.utils import comm
from torch import Tensor, nn

from ..io.weights.layout import named, plain_name

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


class ModelEMA:
    """The EMA of a model's weights (Polyak averaging), which evaluation uses.

    ``average = d * average + (1 - d) * weights`` after each step; buffers are copied.

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


def capture_random_state() -> dict[str, Any]:
    """States of Python's, NumPy's, torch's and (if in use) the current CUDA device's generator.

    Tensors, numbers and text only, so that a checkpoint stays readable with ``weights_only``.
    """
    version, numbers, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()
    state: dict[str, Any] = {
        "python": {"version": version, "numbers": torch.tensor(numbers), "gauss": gauss},
        "numpy": {
            "name": str(name),
            "keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "cached": float(cached),
        },
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Bring all generators into the states of :func:`capture_random_state`."""
    python, numpy = state["python"], state["numpy"]
    random.setstate((python["version"], tuple(python["numbers"].tolist()), python["gauss"]))
    keys = numpy["keys"].numpy().astype(np.uint32)
    np.random.set_state(
        (numpy["name"], keys, numpy["position"], numpy["has_gauss"], numpy["cached"])
    )
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def seed_from(*numbers: int) -> None:
    """Start all generators anew, from numbers that say where: (seed, iteration, process)."""
    seed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def resume_random_states(states: Sequence[Mapping[str, Any]], seed: int, iteration: int) -> None:
    """Go on with the random state of this process, or with a new one where there is none.

    Args:
        states: of the processes that a checkpoint was written by.
        seed: of the run.
        iteration: that is to begin.
    """
    if len(states) == comm.get_world_size():
        restore_random_state(states[comm.get_rank()])
    elif iteration:
        seed_from(seed, iteration, comm.get_rank())
        logger.warning(
            "The checkpoint has the random states of %d processes, and there are %d: dropout "
            "and the like start from new ones.", len(states), comm.get_world_size(),
        )  # fmt: skip


class untouched_random_state:
    """Whatever a block draws, the generators go on afterwards as if it had not been there.

    Args:
        seed: start of the generators within the block; None leaves them as they are.
    """

    def __init__(self, seed: int | None = None) -> None:
        self.seed = seed

    def __enter__(self) -> None:
        self.saved = capture_random_state()
        if self.seed is not None:
            seed_from(self.seed)

    def __exit__(self, *_: object) -> None:
        restore_random_state(self.saved)
