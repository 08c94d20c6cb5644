"""Tensors that say they are on a device that this machine lacks; the CPU does their work."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only


class OnOtherDevice(torch.Tensor):
    """A tensor of such a device: ``place(tensor, "mps")``."""

    place_name = "xpu"

    @property
    def device(self) -> torch.device:
        return torch.device(self.place_name)


class OtherDevice(TorchFunctionMode):
    """While it is on, `tensor.to(name)` and `device=name` give tensors of that device.

    Refuses what the true device would: compiled operators of this package, tensors of the CPU
    beside its own (but for single numbers), and on MPS float64.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.kind = type(f"On{name}", (OnOtherDevice,), {"place_name": name})

    def place(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor's values there."""
        return tensor.as_subclass(self.kind)

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = getattr(function, "__name__", "")
        kwargs = dict(kwargs or {})
        if name in ("__get__", "__set__", "device", "as_subclass"):
            with torch._C.DisableTorchFunctionSubclass():
                return function(*args, **kwargs)
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        here = any(isinstance(x, OnOtherDevice) for x in given)
        no_kernel = f"{function} has no kernel for {self.name}"
        assert not (here and "seg_plugins" in str(function)), no_kernel
        strangers = [x for x in given if not isinstance(x, OnOtherDevice) and x.ndim]
        assert not (here and strangers), f"{name} takes tensors of {self.name} and of the CPU"
        wanted = [x for x in tree_leaves((args, kwargs)) if _is_place(x)]
        leaves = name in ("cpu", "tolist", "numpy") or any(str(x) == "cpu" for x in wanted)
        to_there = any(torch.device(x).type == self.name for x in wanted)
        args, kwargs = tree_map_only(
            (str, torch.device), lambda x: "cpu" if _is_place(x) else x, (args, kwargs)
        )
        plain = tree_map_only(OnOtherDevice, lambda x: x.as_subclass(torch.Tensor), (args, kwargs))
        with torch._C.DisableTorchFunctionSubclass():
            result = function(*plain[0], **plain[1])
        if leaves or not (here or to_there):
            return result
        return tree_map_only(torch.Tensor, self._checked, result)

    def _checked(self, tensor: torch.Tensor) -> torch.Tensor:
        assert self.name != "mps" or tensor.dtype != torch.float64, "MPS has no float64"
        return self.place(tensor)


def _is_place(value: Any) -> bool:
    return isinstance(value, torch.device) or (
        isinstance(value, str) and value in ("cpu", "mps", "xpu")
    )
