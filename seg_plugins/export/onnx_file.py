"""ONNX files of semantic systems: standard operators, symbolic sizes, metadata inside."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .verify import ExportError

OPSET = 18  # reductions of ScatterElements and index_add; RoiAlign with half pixels came with 16


def onnx_package() -> Any:
    """The ``onnx`` module.

    Raises:
        ExportError: the export extra is not installed.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401 - PyTorch's exporter writes through it
    except ImportError as error:
        raise ExportError(
            f"{error}: the ONNX format needs the export extra, pip install 'seg_plugins[export]'"
        ) from None
    return onnx


def write_onnx(
    graph: nn.Module, example: torch.Tensor, path: Path, metadata: Mapping[str, str]
) -> None:
    """Write ``path``, whose input ``images`` and output ``logits`` have symbolic N, H and W.

    Args:
        graph: a :class:`~.semantic.Graph`.
        example: (N, C, H, W) float32 with N > 1.
        path: the file.
        metadata: text by name.

    Raises:
        ExportError: PyTorch could not follow the network, or onnxscript is not installed.
    """
    onnx_package()
    dynamic = torch.export.Dim.DYNAMIC
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                graph,
                (example,),
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=({0: dynamic, 2: dynamic, 3: dynamic},),
                custom_translation_table=_translations(),
            )
    except RuntimeError as error:  # OnnxExporterError is one
        raise ExportError(f"the ONNX export failed: {error}") from error
    _name_dimensions(program.model)
    program.model.metadata_props.update(metadata)
    program.save(path, external_data=False)


def _name_dimensions(model: Any) -> None:
    """Call the free sizes batch, height and width."""
    import onnx_ir

    names = ("batch", None, "height", "width")
    for value in (*model.graph.inputs, *model.graph.outputs):
        dims = [name or size for name, size in zip(names, value.shape, strict=True)]
        value.shape = onnx_ir.Shape(dims)


def _translations() -> dict[Callable, Callable]:
    """What PyTorch's own table translates wrongly or not at all where a size is a symbol."""
    from onnxscript import opset18 as op

    def number(value: Any) -> Any:
        return op.Constant(value_int=value) if isinstance(value, int) else value

    def remainder(x: Any, y: Any) -> Any:
        return op.Mod(x, op.CastLike(number(y), x))

    def floor_division(x: Any, y: Any) -> Any:
        # Div of integers rounds towards zero, Python's // down.
        x, y = number(x), number(y)
        return op.Div(op.Sub(x, op.Mod(x, y)), y)

    return {
        torch.ops.aten.remainder.Scalar: remainder,
        operator.floordiv: floor_division,
    }
