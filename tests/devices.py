"""The devices that tests run on, and what waits for them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# For tests that name the device of every tensor; the fixture `device` makes it the default one.
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.needs_cuda)]
on_each_device = pytest.mark.parametrize("device", DEVICES)

# Their result, or its size, is known to the host only when the device has come so far.
_READS = ("local_scalar_dense", "nonzero", "masked_select", "unique", "equal", "bincount")
_COPIES = {torch.Tensor.cpu, torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.__array__}


class _Functions(TorchFunctionMode):
    """Methods that the dispatcher does not see on the CPU, where the memory is at hand."""

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in _COPIES:
            self.found.append(function.__name__)
        elif function is torch.Tensor.to and any(
            isinstance(word, str) and word == "cpu" for word in (*args[1:], *kwargs.values())
        ):
            self.found.append("to('cpu')")
        return function(*args, **kwargs)


class _Operators(TorchDispatchMode):
    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = function.name().removeprefix("aten::").split(".")[0].strip("_")
        counted = name == "repeat_interleave" and "output_size" not in (kwargs or {})
        if counted or name.startswith(_READS):
            self.found.append(name)
        elif name in ("index", "index_put") and _by_mask(args):
            self.found.append(f"{name} by a mask")
        return function(*args, **(kwargs or {}))


def _by_mask(args: tuple[Any, ...]) -> bool:
    """Filling one value in is no wait."""
    masks = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
    return bool(masks) and not (len(args) > 2 and args[2].numel() == 1)


@contextmanager
def host_waits(device: str) -> Iterator[list[str]]:
    """Lists what, in the block, makes the host wait for the device.

    On the CPU these are the operators that would make it wait on a GPU.
    """
    found: list[str] = []
    if device == "cpu":
        with _Functions(found), _Operators(found):
            yield found
        return
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode("default")
    texts = [str(warning.message) for warning in caught]
    found += [text for text in texts if "synchronizing" in text]


@contextmanager
def host_never_waits(device: str) -> Iterator[None]:
    """Fails where something in the block makes the host wait: on a GPU at its very line."""
    if device == "cpu":
        with host_waits(device) as found:
            yield
        assert not found, f"on a GPU the host would wait for: {found}"
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def other_queue(device: str) -> AbstractContextManager[Any]:
    """Work in the block goes to another stream than the default one, after a long wait."""
    return nullcontext() if device == "cpu" else _late_stream()


@contextmanager
def _late_stream() -> Iterator[None]:
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()) as _:
        torch.cuda._sleep(50_000_000)  # cycles: what ran on the default stream would be early
        yield
    torch.cuda.synchronize()


def recorded(device: str, work: Callable[[], Any]) -> Callable[[], Any]:
    """The work as a CUDA graph, which runs again on what its tensors hold by then."""
    if device == "cpu":
        return work
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):  # lazy set-up must not be recorded
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = work()

    def replay() -> Any:
        graph.replay()
        return result

    return replay
