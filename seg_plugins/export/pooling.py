"""Where SegNet's file puts values back, compared with where the system does.

The decoder puts values back where the encoder found its maxima. Where candidates of a pooling
window are equal but for rounding, as in any area of one colour, the runtimes' rounding decides
which one that is, and the logits around it differ although nothing is wrong. So both halves of
the statement are checked separately: each maximum of the file lies where the system has one, too;
and, values put back where the file has them, the system gives the file's logits.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..ops.max_unpool import IndexedMaxPool2d
from .onnx_file import onnx_package
from .openvino_file import openvino_runner
from .verify import ExportError, onnx_session, run_session

# How far a value may lie below its window's maximum, as a share of the map's largest magnitude, to
# be one itself: float32 has 24 bits, and a convolution sums some hundred products.
ROUNDING = 1e-5

# The network's input of one pass -> (N, C, h, w) uint8 codes of its poolings, from fine to coarse.
Positions = Callable[[Tensor], Sequence[Tensor]]


class Follower:
    """Runs a system with the maxima where a file has them.

    Attributes:
        elsewhere: maxima of the last run that the system has in another place of their window.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.elsewhere = 0

    @contextlib.contextmanager
    def following(self, positions: Positions) -> Iterator[None]:
        """Within, the system unpools by the file's codes.

        Args:
            positions: of the file, for each pass of the network.

        Raises:
            ExportError: the file has a maximum where the system has a smaller value.
        """
        self.elsewhere = 0
        codes: deque[Tensor] = deque()

        def begin(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            codes.extend(positions(inputs[0]))

        def place(
            pool: IndexedMaxPool2d, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, Tensor]
        ) -> tuple[Tensor, Tensor]:
            values, own = outputs
            chosen = codes.popleft()
            self._check(pool, inputs[0], values, chosen)
            self.elsewhere += int((own != chosen).sum())
            return values, chosen

        pools = [m for m in self.model.modules() if isinstance(m, IndexedMaxPool2d)]
        hooks = [self.model.backbone.register_forward_pre_hook(begin)]
        hooks += [pool.register_forward_hook(place) for pool in pools]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    @staticmethod
    def _check(pool: IndexedMaxPool2d, x: Tensor, values: Tensor, codes: Tensor) -> None:
        if codes.shape != values.shape:
            raise ExportError(
                f"the exported file pools to {tuple(codes.shape)}, the model to "
                f"{tuple(values.shape)}"
            )
        below = float((values - _values_at(pool, x, codes)).max())
        allowed = ROUNDING * float(x.abs().max())
        if not below <= allowed:  # NaN is an error, too
            raise ExportError(
                f"the exported file has a maximum of a {tuple(x.shape)} map where the model has a "
                f"value smaller by {below:.2e}; rounding explains {allowed:.2e}"
            )


def _values_at(pool: IndexedMaxPool2d, x: Tensor, codes: Tensor) -> Tensor:
    """Values of (N, C, H, W) at (N, C, h, w) codes; minus infinity beyond the border."""
    height, width = x.shape[-2:]
    code = codes.long()
    rows = torch.arange(codes.shape[-2])[:, None] * pool.stride + code // pool.kernel
    columns = torch.arange(codes.shape[-1]) * pool.stride + code % pool.kernel
    inside = (rows < height) & (columns < width) & (code < pool.kernel**2)
    pixels = torch.where(inside, rows * width + columns, 0).flatten(2)
    found = x.flatten(2).gather(2, pixels).view(codes.shape)
    return torch.where(inside, found, -torch.inf)


Session = Callable[[Tensor], Sequence[Tensor]]


def onnx_session_of(content: bytes, name: str) -> Session:
    """All outputs of an ONNX model's bytes, by onnxruntime."""
    session = onnx_session(content, name)
    return lambda images: run_session(session, images, name)


def openvino_session(content: bytes, name: str) -> Session:
    """The same by OpenVINO."""
    run = openvino_runner(content, name)
    return lambda images: list(run(images).values())


def onnx_positions(
    path: Path, session_of: Callable[[bytes, str], Session] = onnx_session_of
) -> Callable[[Tensor], Positions]:
    """The codes of an ONNX file, which are the only uint8 values in it.

    Args:
        path: the file.
        session_of: what runs it.

    Returns:
        For (N, C, H, W) images, as the file takes them, what :meth:`Follower.following` needs.
    """
    onnx = onnx_package()
    model = onnx.load(path)
    loops = [node for node in model.graph.node if node.op_type == "Loop"]
    uint8 = onnx.TensorProto.UINT8
    place = next(a.g for a in loops[0].attribute if a.name == "body") if loops else model.graph
    names = [node.output[0] for node in place.node if _casts_to(node, uint8)]
    if not names:
        raise ExportError(f"{path.name} does not tell where its maxima are: no uint8 in it")
    for name in names:
        place.output.append(onnx.helper.make_tensor_value_info(name, uint8, None))
    if loops:  # a loop collects what its passes give beyond its state
        for name in names:
            loops[0].output.append(f"all_{name}")
            value = onnx.helper.make_tensor_value_info(f"all_{name}", uint8, None)
            model.graph.output.append(value)
    session = session_of(model.SerializeToString(), path.name)

    def passes(images: Tensor) -> Iterator[list[Tensor]]:
        codes = list(session(images)[-len(names) :])
        if not loops:
            yield codes
            return
        # The file takes all images window by window; the system all windows of an image.
        for image in range(len(images)):
            for window in range(len(codes[0])):
                yield [code[window, image : image + 1] for code in codes]

    def positions(images: Tensor) -> Positions:
        waiting = passes(images)
        return lambda _: next(waiting)

    return positions


def _casts_to(node: Any, kind: int) -> bool:
    return node.op_type == "Cast" and any(a.name == "to" and a.i == kind for a in node.attribute)


def torchscript_positions(path: Path) -> Callable[[Tensor], Positions]:
    """The codes of a TorchScript file, whose network gives them beside the logits."""
    module = torch.jit.load(path, map_location="cpu").eval()
    network = module.whole.network if hasattr(module, "whole") else module.network
    return lambda _: lambda x: network(x)[1:]
