"""Among equals every runtime of a file chooses as PyTorch does."""

from __future__ import annotations

from seg_plugins.export import onnx_file, verify
from seg_plugins.export.openvino_file import openvino_runner, write_openvino

import numpy as np
import pytest
import torch
from torchvision.ops import nms

onnx = pytest.importorskip("onnx")
RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino", "openvino_onnx": "openvino"}


@pytest.fixture(params=list(RUNTIMES))
def run(request, tmp_path):
    """A function that runs a node of one input and a constant; by IR, and ONNX read directly."""
    pytest.importorskip(RUNTIMES[request.param])

    def of_node(kind: str, inputs: dict, constants: dict, outputs: list[str], x: torch.Tensor):
        helper, numbers = onnx.helper, onnx.numpy_helper
        weights = [numbers.from_array(np.asarray(v), name) for name, v in constants.items()]
        node = helper.make_node(kind, [*inputs, *constants], outputs)
        if kind == "NonMaxSuppression":  # boxes (1, n, 4) are the input, scores fall
            node.input[:] = ["boxes", "scores", "most", "threshold"]
        types = {"index": onnx.TensorProto.INT64}
        graph = helper.make_graph(
            [node],
            "graph",
            [
                helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s)
                for n, s in inputs.items()
            ],
            [helper.make_tensor_value_info(n, types.get(n, 1), None) for n in outputs],
            weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        path = tmp_path / "model.onnx"
        metadata = {"first_of_equals": "true"}
        onnx_file.save_onnx(onnx_file.suppress_as_torch(model), path, metadata)
        if request.param == "openvino":
            write_openvino(path, tmp_path / "model.xml", metadata, outputs)
            return openvino_runner(tmp_path / "model.xml")(x)
        if request.param == "openvino_onnx":
            return openvino_runner(path.read_bytes(), path.name)(x)
        return verify.onnx_runner(path)(x)

    return of_node


@pytest.mark.parametrize("count", [8, 83, 3000])
def test_the_first_of_equal_values_comes_first(run, count):
    values = torch.arange(count).remainder(3).float()
    values[count // 2 :] = -torch.inf
    most = {"most": np.array([count])}
    found = run("TopK", {"x": ["n"]}, most, ["value", "index"], values)["index"]
    assert found.tolist() == values.sort(descending=True, stable=True).indices.tolist()


# Widths of a box inside one of width `of`: the IoU is width / of, for which the float32 nearest to
# the threshold lies above it (0.8, 0.6), below it (0.7), or is it (0.5, 0.25).
@pytest.mark.parametrize(
    ("threshold", "width", "of", "stays"),
    [
        *((0.5, 2, 4, True), (0.25, 1, 4, True), (0.7, 7, 10, True)),
        *((0.8, 4, 5, False), (0.6, 3, 5, False)),
        *((0.5, 3, 4, False), (0.8, 3, 4, True)),
    ],
)
def test_an_overlap_of_the_threshold(run, threshold, width, of, stays):
    boxes = torch.tensor([[0.0, 0, of, 4], [0, 0, width, 4]])
    scores = torch.tensor([0.9, 0.8])
    assert (len(nms(boxes, scores, threshold)) == 2) == stays
    constants = {
        "scores": scores.numpy()[None, None],
        "most": np.array([9]),
        "threshold": np.array([threshold], np.float32),
    }
    found = run("NonMaxSuppression", {"boxes": [1, "n", 4]}, constants, ["index"], boxes[None])
    assert found["index"][:, 2].tolist() == ([0, 1] if stays else [0])
