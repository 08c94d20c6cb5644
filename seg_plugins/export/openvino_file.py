"""OpenVINO's own format (IR): a graph, ``.xml``, and its weights beside it, ``.bin``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..runtime.openvino_engine import SECTION
from ..runtime.openvino_model import as_onnx_says
from ..runtime.openvino_requests import Requests
from .onnx_file import metadata_of, onnx_package
from .verify import ExportError, Runner, cannot_run, lines_of


def openvino_package() -> Any:
    """The ``openvino`` module.

    Raises:
        ExportError: the extra is not installed.
    """
    try:
        import openvino
    except ImportError as error:
        raise ExportError(
            f"{error}: OpenVINO files need the openvino extra, pip install 'seg_plugins[openvino]'"
        ) from None
    return openvino


def write_openvino(
    onnx_path: Path, path: Path, metadata: Mapping[str, str], names: Sequence[str]
) -> None:
    """Convert an ONNX file to ``path`` (``.xml``) and the weights beside it.

    Args:
        onnx_path: the file.
        path: of the graph.
        metadata: text by name.
        names: of the outputs, in the ONNX file's order.

    Raises:
        ExportError: openvino is not installed, or does not take the file.
    """
    openvino = openvino_package()
    try:
        model = as_onnx_says(openvino.Core().read_model(onnx_path), metadata)
    except Exception as error:  # its classes differ between versions
        raise ExportError(
            f"OpenVINO {openvino.__version__} does not take the network: {lines_of(error)[0]}. "
            "Use --format onnx."
        ) from error
    # A value may have several names in the graph: the file's outputs have those of the system.
    for output, name in zip(model.outputs, names, strict=True):
        output.get_tensor().set_names({name})
    for key, value in metadata.items():
        model.set_rt_info(value, [SECTION, key])
    openvino.save_model(model, path, compress_to_fp16=False)


def divide_exactly(model: Any) -> Any:
    """Write a / n of whole numbers as (a - a % n) / n, in place; returns the model.

    OpenVINO (2026.4) takes (a / n) * n to be a, as if nothing were rounded: then images are not
    padded to a multiple of n.
    """
    onnx = onnx_package()
    whole = {
        node.output[0]
        for node in model.graph.node
        if node.op_type == "Constant"
        and any(
            a.name == "value" and a.t.data_type == onnx.TensorProto.INT64 for a in node.attribute
        )
    }
    nodes = []
    for node in model.graph.node:
        if node.op_type == "Div" and node.input[1] in whole:
            name = node.output[0]
            make = onnx.helper.make_node
            nodes.append(make("Mod", node.input, [f"{name}_rest"], name=f"{name}_mod"))
            parts = [node.input[0], f"{name}_rest"]
            nodes.append(make("Sub", parts, [f"{name}_multiple"], name=f"{name}_sub"))
            node.input[0] = f"{name}_multiple"
        nodes.append(node)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    return model


def openvino_runner(model: Path | bytes, name: str = "") -> Runner:
    """Run a file on the CPU in float32.

    Args:
        model: the ``.xml``; or the content of an ONNX file.
        name: of the file, for errors; default: that of the path.

    Raises:
        ExportError: OpenVINO does not read the file, or, when run, the image.
    """
    name = name or Path(str(model)).name
    core = openvino_package().Core()
    if isinstance(model, Path):
        read = read_openvino(model)
    else:
        metadata = metadata_of(onnx_package().load_model_from_string(model))
        read = as_onnx_says(core.read_model(model), metadata)
    names = [output.get_any_name() for output in read.outputs]
    requests = Requests(core, read, torch.get_num_threads(), "f32")

    def run(images: Tensor) -> dict[str, Tensor]:
        try:
            values = requests.infer(images.numpy())
        except RuntimeError as error:
            reason = lines_of(error)[-1]
            raise ExportError(cannot_run("OpenVINO", name, images, reason)) from error
        return dict(zip(names, map(torch.from_numpy, values), strict=True))

    return run


def read_openvino(path: Path) -> Any:
    """OpenVINO's model of a file.

    Raises:
        ExportError: it is no such file, or its weights are missing.
    """
    openvino = openvino_package()
    if not path.with_suffix(".bin").is_file():
        raise ExportError(f"{path.with_suffix('.bin')}, the weights of {path.name}, does not exist")
    try:
        return openvino.Core().read_model(path)
    except RuntimeError as error:
        raise ExportError(
            f"OpenVINO {openvino.__version__} does not read {path}: {lines_of(error)[-1]}. Export "
            "it again."
        ) from error
