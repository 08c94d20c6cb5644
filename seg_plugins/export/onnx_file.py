"""ONNX files: standard operators, symbolic sizes, metadata inside, and large weights beside."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..config import ConfigError
from . import same_padding
from .verify import ExportError

#: Operator sets by default. Reductions of ScatterElements and index_add came with 18, RoiAlign with
#: half pixels with 16.
BATCHED_OPSET, REGIONS_OPSET = 18, 17
#: The oldest onnxruntime that runs a file of each operator set, as tried with files of U-Net and
#: Mask R-CNN from 1.15 (for Python 3.11) on; up to 18 older ones may do as well.
OLDEST_RUNTIME = {
    16: "1.15", 17: "1.15", 18: "1.15", 19: "1.16", 20: "1.17", 21: "1.18", 22: "1.21", 23: "1.23",
}  # fmt: skip
#: Bytes of weights that a file may have; protobuf reads no more than 2 GiB in all.
ONE_FILE = 2**31 - 2**26
# Bytes of a tensor that stays in the file anyway.
_SMALL = 1024


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
    graph: nn.Module, example: torch.Tensor, path: Path, names: Sequence[str], opset: int
) -> None:
    """Write ``path``, whose input ``images`` and outputs have symbolic N, H and W.

    Args:
        graph: a :class:`~.semantic.Graph` or :class:`~.semantic.CenterGraph`.
        example: (N, C, H, W) float32 with N > 1.
        path: the file.
        names: of the outputs.
        opset: 18 or newer.

    Raises:
        ExportError: PyTorch could not follow the network, or onnxscript is not installed.
    """
    onnx_package()
    dynamic = torch.export.Dim.DYNAMIC
    try:
        with warnings.catch_warnings(), torch.no_grad(), same_padding.by_name(graph):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                graph,
                (example,),
                dynamo=True,
                verbose=False,
                opset_version=opset,
                input_names=["images"],
                output_names=list(names),
                dynamic_shapes=({0: dynamic, 2: dynamic, 3: dynamic},),
                custom_translation_table=_translations(),
            )
    except RuntimeError as error:  # OnnxExporterError is one
        raise ExportError(f"the ONNX export failed: {error}") from error
    _name_dimensions(program.model)
    # Weights beside the graph: above 2 GiB a file cannot hold them, and `save_onnx` decides.
    program.save(path, external_data=True)


def load_onnx(path: Path) -> Any:
    """A file with its weights, whether they lie in it or beside it."""
    return onnx_package().load(path)


def save_onnx(model: Any, path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a model, its weights beside it in ``NAME.data`` where one file cannot hold them.

    Its IR version is the lowest that its operator set permits, so that older runtimes take it.

    Args:
        model: an ``onnx.ModelProto`` with its weights inside.
        path: the file; what was beside it under the other name goes.
        metadata: text by name; None leaves what it has.
    """
    onnx = onnx_package()
    if metadata is not None:
        onnx.helper.set_model_props(model, dict(metadata))
    model.ir_version = onnx.helper.find_min_ir_version_for(model.opset_import, ignore_unknown=True)
    beside = path.with_name(f"{path.name}.data")
    beside.unlink(missing_ok=True)
    if sum(len(tensor.raw_data) for tensor in model.graph.initializer) <= ONE_FILE:
        onnx.save(model, path)
        return
    onnx.save(model, path, save_as_external_data=True, location=beside.name, size_threshold=_SMALL)


def suppress_as_torch(model: Any) -> Any:
    """Round the thresholds of NonMaxSuppression down, in place; returns the model.

    The nearest float32 of 0.8 lies above it: an IoU of 4/5, that float32, is above the threshold
    in PyTorch, which compares with the float64, and not above it in the file. With the float32
    below both drop the same boxes.
    """
    onnx = onnx_package()
    values = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            values.update((node.output[0], a.t) for a in node.attribute if a.name == "value")
    for number, node in enumerate(model.graph.node):
        if node.op_type == "NonMaxSuppression":
            nearest = onnx.numpy_helper.to_array(values[node.input[3]])
            # The number of a configuration: the shortest one that this float32 is nearest to.
            exact = np.array([float(str(value)) for value in nearest.ravel()])
            down = np.where(nearest > exact, np.nextafter(nearest, np.float32(0)), nearest)
            name = f"nms_threshold_{number}"
            model.graph.initializer.append(onnx.numpy_helper.from_array(down, name))
            node.input[3] = name
    return model


def metadata_of(model: Any) -> dict[str, str]:
    """Text by name."""
    return {entry.key: entry.value for entry in model.metadata_props}


def check_opset(opset: int, batched: bool) -> None:
    """Refuse a version that the exporter of a system does not write.

    Raises:
        ConfigError: the message says which it does.
    """
    low, high = (18, max(OLDEST_RUNTIME)) if batched else (16, 20)
    if not low <= opset <= high:
        system = "semantic and bottom-up systems" if batched else "systems of regions"
        raise ConfigError(f"--opset {opset}: files of {system} take {low} to {high}")


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
        **same_padding.translations(),
    }
