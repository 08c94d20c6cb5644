"""float16 files: half the size, and fast on GPUs; what would overflow is found beforehand."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from torch import Tensor, nn

from ..modeling.sem_seg_heads.base import ScoreConv2d
from .systems import TensorSystem
from .verify import ExportError

#: The greatest float16.
GREATEST = 65504.0
# Their inputs and weights stay float32: scores decide close calls, boxes need the bits.
_FLOAT32 = (ScoreConv2d, FastRCNNOutputLayers, ROIPooler)
_WEIGHTED = (
    nn.modules.conv._ConvNd,
    nn.Linear,
    nn.modules.batchnorm._BatchNorm,
    nn.GroupNorm,
)  # fmt: skip


def check_range(system: TensorSystem, more: Sequence[Tensor] = ()) -> None:
    """Run the system and look at what every layer gives.

    Args:
        system: in float32.
        more: inputs beside the system's examples, of a dataset.

    Raises:
        ExportError: float16 cannot hold a value or a weight; the layer is named.
    """
    found: dict[str, float] = {}

    def look(name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.is_floating_point() and output.numel():
                found[name] = max(found.get(name, 0.0), float(output.abs().max()))

        return hook

    handles = []
    for name, module in system.model.named_modules():
        for own, weight in module.named_parameters(recurse=False):
            _refuse(f"{name}.{own}", float(weight.detach().abs().max()) if weight.numel() else 0)
        if not any(True for _ in module.children()):
            handles.append(module.register_forward_hook(look(name)))
    try:
        for images in (*system.examples, *more):
            system.reference(images)
    finally:
        for handle in handles:
            handle.remove()
    for name, value in found.items():
        _refuse(name, value)


def _refuse(layer: str, value: float) -> None:
    if not value <= GREATEST:  # NaN, too
        raise ExportError(
            f"float16 holds at most {GREATEST:.0f}, and {layer} gives {value:.4g}: export without "
            "--float16. Normalisation (MODEL.*.NORM) keeps what layers give small."
        )


def halved(graph: nn.Module) -> nn.Module:
    """A copy whose layers compute in float16; inputs and outputs stay float32.

    Each layer takes its input in its own type, so that whatever stands between them may be of
    either.
    """
    graph = copy.deepcopy(graph)
    kept: set[nn.Module] = set()
    for module in graph.modules():
        if isinstance(module, _FLOAT32):
            kept |= set(module.modules())
    for module in graph.modules():
        if isinstance(module, _FLOAT32):
            module.register_forward_pre_hook(_in(torch.float32))
        elif module not in kept and isinstance(module, _WEIGHTED):
            module.half()
            module.register_forward_pre_hook(_in(torch.float16))
    return graph


def _in(dtype: torch.dtype) -> Any:
    def hook(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(_cast(value, dtype) for value in inputs)

    return hook


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    return [_cast(item, dtype) for item in value] if isinstance(value, list) else value
