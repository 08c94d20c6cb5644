"""Operator sets, large weights, float16's range, and what INT8 takes."""

from __future__ import annotations

from seg_plugins import load_config
from seg_plugins.config import ConfigError
from seg_plugins.export import ExportError, ExportOptions, export_model, half, onnx_file
from seg_plugins.export.metric import MetricCheck, main_figures, require
from seg_plugins.export.quantize import network_nodes
from seg_plugins.export.systems import tensor_system

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model


def system():
    """A small U-Net with padding."""
    opts = [
        *("MODEL.DEVICE", "cpu", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 3, "MODEL.UNET.DEPTH", 3),
        *("MODEL.UNET.WIDTH", 16, "MODEL.SEM_SEG_HEAD.IN_FEATURES", ["enc1", "enc2", "enc3"]),
        *("MODEL.UNET.PADDING", "same", "MODEL.UNET.NORM", "BN"),
    ]
    cfg = load_config("_base_/unet.yaml", opts)
    return cfg, build_model(cfg).eval()


def doubling(onnx, opset: int = 18):
    """A model of one weight, 2,000 numbers."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    weight = onnx.numpy_helper.from_array(np.full(2000, 2, np.float32), "weight")
    values = [helper.make_tensor_value_info(name, kind, [2000]) for name in ("x", "y")]
    node = helper.make_node("Mul", ["x", "weight"], ["y"], name="double")
    graph = helper.make_graph([node], "graph", values[:1], values[1:], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def test_large_weights_lie_beside_the_file(tmp_path, monkeypatch):
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    path = tmp_path / "model.onnx"
    onnx_file.save_onnx(doubling(onnx), path, {"a": "b"})
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    monkeypatch.setattr(onnx_file, "ONE_FILE", 4000)
    onnx_file.save_onnx(onnx_file.load_onnx(path), path)
    assert (tmp_path / "model.onnx.data").stat().st_size >= 8000
    assert path.stat().st_size < 1000
    session = runtime.InferenceSession(path)
    (found,) = session.run(None, {"x": np.arange(2000, dtype=np.float32)})
    assert found.tolist() == list(range(0, 4000, 2))
    assert session.get_modelmeta().custom_metadata_map == {"a": "b"}
    # Once more, in one file: what lay beside it goes.
    monkeypatch.undo()
    onnx_file.save_onnx(onnx_file.load_onnx(path), path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize(("opset", "ir"), [(17, 8), (18, 8), (20, 9), (21, 10)])
def test_the_oldest_runtime_reads_the_file(opset, ir, tmp_path):
    onnx = pytest.importorskip("onnx")
    onnx_file.save_onnx(doubling(onnx, opset), tmp_path / "model.onnx")
    assert onnx.load(tmp_path / "model.onnx").ir_version == ir


def test_int8_leaves_products_of_computed_values_in_float():
    """Masks by predicted kernels; attention, which a layer follows, belongs to the network."""
    onnx = pytest.importorskip("onnx")
    node, kind = onnx.helper.make_node, onnx.TensorProto.FLOAT
    nodes = [
        node("Conv", ["x", "w"], ["maps"], name="layer"),
        node("Softmax", ["maps"], ["shares"], name="between"),
        node("MatMul", ["maps", "shares"], ["attended"], name="attention"),
        node("Conv", ["attended", "w"], ["kernels"], name="controller"),
        node("Mul", ["places", "kernels"], ["scaled"], name="ways"),
        node("MatMul", ["scaled", "maps"], ["masks"], name="masks"),
        node("Transpose", ["w"], ["turned"], name="turn"),
        node("Conv", ["kernels", "turned"], ["scores"], name="last layer"),
        node("Conv", ["maps", "scaled", "w"], ["others"], name="predicted, with a fixed bias"),
    ]
    info = onnx.helper.make_tensor_value_info
    inputs = [info("x", kind, [1, 2, 4, 4]), info("places", kind, [1])]
    weight = onnx.numpy_helper.from_array(np.ones((2, 2, 1, 1), np.float32), "w")
    graph = onnx.helper.make_graph(
        nodes, "graph", inputs, [info("masks", kind, [1, 2, 4, 4])], [weight]
    )
    found = [node.name for node in network_nodes(onnx.helper.make_model(graph))]
    expected = ["layer", "between", "attention", "controller", "turn", "last layer"]
    assert found == expected


def test_an_opset_that_is_not_written_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"--opset 17: files of semantic.* take 18 to 23"):
        export_model(*system(), "onnx", tmp_path, ExportOptions(opset=17))
    with pytest.raises(ConfigError, match="--opset 21: files of systems of regions take 16 to 20"):
        onnx_file.check_opset(21, batched=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("torchscript", {"float16": True}, "use --format onnx or openvino"),
        ("safetensors", {"verify_on": "shapes_val"}, "--verify-on is for the others"),
        ("onnx", {"float16": True, "int8": "shapes_val"}, "exclude each other"),
        ("onnx", {"verify_on": "shapes_vall"}, "shapes_vall.*Nearest: .*shapes_val"),
    ],
)
def test_options_that_do_not_fit_are_refused(kind, options, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        export_model(*system(), kind, tmp_path, ExportOptions(**options))
    assert not list(tmp_path.iterdir())


def test_what_overflows_float16_is_named():
    cfg, model = system()
    subject = tensor_system(cfg, model, "onnx")
    half.check_range(subject)
    name, layer = next(
        (name, layer)
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Conv2d) and name.startswith("backbone")
    )
    layer.weight.data.mul_(6e4 / layer.weight.abs().max())
    with pytest.raises(
        ExportError, match=rf"65504, and {name}.norm gives [\d.e+]+: export without"
    ):
        half.check_range(subject)
    layer.weight.data[0, 0, 0, 0] = 1e5
    with pytest.raises(ExportError, match=rf"{name}.weight gives 1e\+05"):
        half.check_range(subject)


def test_halved_layers_compute_in_float16_and_give_float32():
    cfg, model = system()
    graph = tensor_system(cfg, model, "onnx").graph
    images = torch.rand(1, 3, 64, 64) * 255
    with torch.no_grad():
        found, expected = half.halved(graph)(images), graph(images)
    assert found.dtype == torch.float32
    error = (found - expected).abs().max() / expected.abs().max()
    assert 0 < error < 0.02
    assert {p.dtype for p in graph.parameters()} == {torch.float32}, "the model is untouched"


def test_the_metric_may_not_fall():
    lines: list[str] = []
    checks = [MetricCheck("d", "segm/AP", 40.0, 39.95), MetricCheck("d", "bbox/AP", 50.0, 51.0)]
    require(checks, 0.1, lines.append, "Advice.")
    assert lines[0] == "d: segm/AP 40.00 of the model, 39.95 of the file (-0.05)"
    with pytest.raises(ExportError, match=r"segm/AP falls by 0\.05 points on d; 0\.01 .* Advice"):
        require(checks, 0.01, lines.append, "Advice.")
    nan = [MetricCheck("d", "segm/AP", 40.0, float("nan"))]
    with pytest.raises(ExportError):
        require(nan, 0.1, lines.append, "")


def test_main_figures_of_results():
    results = {"sem_seg": {"mIoU": 50.0, "fwIoU": 1.0}, "segm": {"AP": 20.0}, "bbox": {"AP": 30.0}}
    assert main_figures(results) == {"segm/AP": 20.0, "bbox/AP": 30.0, "sem_seg/mIoU": 50.0}


def test_what_follows_the_network_is_not_quantised():
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from seg_plugins.export.quantize import network_nodes

    node = onnx.helper.make_node
    nodes = [
        node("Conv", ["x", "w"], ["a"], name="first"),
        node("Relu", ["a"], ["b"], name="between"),
        node("Mul", ["b", "s"], ["boxes"], name="boxes"),
        node("RoiAlign", ["b", "boxes", "n"], ["c"], name="pool"),
        node("Greater", ["boxes", "s"], ["large"], name="large"),
        node("NonZero", ["large"], ["which"], name="which"),
        node("ScatterND", ["c", "which", "c"], ["put"], name="put back"),
        node("Conv", ["put", "w"], ["d"], name="second"),
        node("Sigmoid", ["d"], ["y"], name="scores"),
        node("Shape", ["a"], ["size"], name="size"),
        node("Mul", ["size", "s"], ["half"], name="padding"),
        node("Pad", ["a", "half"], ["e"], name="pad"),
        node("Conv", ["e", "w"], ["f"], name="third"),
    ]
    constants = [onnx.numpy_helper.from_array(np.ones(1, np.float32), name) for name in "wsn"]
    graph = onnx.helper.make_graph(nodes, "graph", [], [], constants)
    found = network_nodes(onnx.helper.make_model(graph))
    network = ["first", "between", "pool", "put back", "second", "pad", "third"]
    assert [n.name for n in found] == network
