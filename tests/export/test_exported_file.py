"""Files from outside are whole and this package's own, or named."""

from __future__ import annotations

from seg_plugins.export import ExportError, load_exported, onnx_file
from seg_plugins.io.files import write_digest

import numpy as np
import pytest
import torch

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def written(path, metadata):
    """A file that adds one to each number."""
    helper = onnx.helper
    values = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["n"]) for n in ("x", "y")]
    one = onnx.numpy_helper.from_array(np.ones(1, np.float32), "one")
    node = helper.make_node("Add", ["x", "one"], ["y"])
    graph = helper.make_graph([node], "graph", values[:1], values[1:], [one])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx_file.save_onnx(model, path, metadata)
    write_digest(path)
    return path


def test_an_own_file_runs(tmp_path):
    path = written(tmp_path / "model.onnx", {"producer": "seg_plugins", "task": "sem_seg"})
    file = load_exported(path)
    assert file.metadata["task"] == "sem_seg"
    assert file.run(torch.zeros(2))["y"].tolist() == [1, 1]


def test_a_file_of_another_program_is_named(tmp_path):
    path = written(tmp_path / "model.onnx", {"producer": "somebody"})
    with pytest.raises(ExportError, match=r"model\.onnx was not written by seg-plugins export"):
        load_exported(path)


def test_damage_is_named(tmp_path):
    path = written(tmp_path / "model.onnx", {"producer": "seg_plugins"})
    content = path.read_bytes()
    at = content.index(np.ones(1, np.float32).tobytes())
    path.write_bytes(content[:at] + b"\x01" + content[at + 1 :])  # a weight, by one bit
    with pytest.raises(ExportError, match=r"model\.onnx: its SHA-256 is .* Export it again"):
        load_exported(path)
    path.with_name("model.onnx.sha256").unlink()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ExportError, match=r"does not accept .*model\.onnx"):
        load_exported(path)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(ExportError, match=r"no\.onnx: it does not exist"):
        load_exported(tmp_path / "no.onnx")
    with pytest.raises(ExportError, match=r"a\.tflite: exported files .* \.onnx or \.xml"):
        load_exported(tmp_path / "a.tflite")
    path = written(tmp_path / "model.onnx", {"producer": "seg_plugins"})
    part = tmp_path / "model.onnx.data"
    part.write_bytes(b"weights")
    write_digest(part)
    part.unlink()
    with pytest.raises(ExportError, match=r"model\.onnx\.data: it does not exist"):
        load_exported(path)


def test_openvino_files(tmp_path):
    pytest.importorskip("openvino")
    from seg_plugins.export.openvino_file import write_openvino

    source = written(tmp_path / "model.onnx", {})
    path = tmp_path / "model.xml"
    write_openvino(source, path, {"producer": "seg_plugins", "task": "sem_seg"}, ["y"])
    file = load_exported(path)
    assert file.metadata == {"producer": "seg_plugins", "task": "sem_seg"}
    assert file.run(torch.zeros(2))["y"].tolist() == [1, 1]
    path.write_text("<net/>")
    with pytest.raises(ExportError, match=r"does not read .*model\.xml"):
        load_exported(path)
    path.with_suffix(".bin").unlink()
    with pytest.raises(ExportError, match=r"model\.bin, the weights of model\.xml"):
        load_exported(path)


def test_openvino_divides_whole_numbers_as_onnx_does(tmp_path):
    """The padded size of a map, (size + 31) / 32 * 32, is a multiple of 32."""
    pytest.importorskip("openvino")
    from seg_plugins.export.openvino_file import divide_exactly, openvino_runner

    make, kind = onnx.helper.make_node, onnx.TensorProto
    whole = {"n": 32, "more": 31}
    nodes = [
        make("Constant", [], [name], value=onnx.numpy_helper.from_array(np.array(value), name))
        for name, value in whole.items()
    ]
    nodes += [
        make("Shape", ["x"], ["size"]),
        make("Add", ["size", "more"], ["a"]),
        make("Div", ["a", "n"], ["b"], name="div"),
        make("Mul", ["b", "n"], ["y"]),
    ]
    values = [
        onnx.helper.make_tensor_value_info("x", kind.FLOAT, ["k"]),
        onnx.helper.make_tensor_value_info("y", kind.INT64, [1]),
    ]
    graph = onnx.helper.make_graph(nodes, "graph", values[:1], values[1:])
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8
    )
    run = openvino_runner(divide_exactly(model).SerializeToString(), "model")
    assert [int(run(torch.zeros(k))["y"]) for k in (1, 32, 33, 121)] == [32, 32, 64, 128]
