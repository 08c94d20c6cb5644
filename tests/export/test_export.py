"""Every system as ONNX and TorchScript: the export itself compares each file with the system."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

from seg_plugins import load_config
from seg_plugins.config import ConfigError
from seg_plugins.export import ExportError, export_model, load_for_export, verify
from seg_plugins.export.quantize import network_nodes

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from exported_systems import HEAD, SYSTEMS, system

FAST = ("segnet", "unet", "unet_same")
MASK_RCNN = [
    *("MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.145),
]


CASES = [
    pytest.param(
        name, kind, marks=[pytest.mark.slow] if kind == "onnx" and name not in FAST else []
    )
    for kind in ("onnx", "torchscript")
    for name in SYSTEMS
]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_whole_images(name, kind, tmp_path):
    result = export_model(*system(name), kind, tmp_path)
    assert len({check.shape for check in result.checks}) == 3
    assert max(check.differences["logits"] for check in result.checks) < 1e-3
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {result.path.name, f"{result.path.name}.sha256"}


def test_a_file_that_onnxruntime_refuses_is_named(tmp_path):
    pytest.importorskip("onnxruntime")
    (tmp_path / "a.onnx").write_bytes(b"no model")
    with pytest.raises(ExportError, match=r"does not accept a\.onnx: .*--format torchscript"):
        verify.onnx_runner(tmp_path / "a.onnx")


def test_lack_of_memory_names_the_smaller_window():
    pytest.importorskip("onnxruntime")

    class Session:
        def get_inputs(self):
            return [SimpleNamespace(name="images", shape=["batch", 3])]

        def run(self, names, inputs):
            raise RuntimeError("Failed to allocate memory for requested buffer of size 9")

    with pytest.raises(ExportError, match=r"a\.onnx \(input batch x 3\) on 1 x 3.*MODE slide"):
        verify.run_session(Session(), torch.zeros(1, 3), "a.onnx")


def test_metadata_is_inside(tmp_path):
    onnx = pytest.importorskip("onnx")
    cfg, model = system("unet_same")
    path = export_model(cfg, model, "onnx", tmp_path).path
    file = onnx.load(path)
    found = {entry.key: entry.value for entry in file.metadata_props}
    assert json.loads(found["classes"]) == ["class_0", "class_1", "class_2"]
    assert len(json.loads(found["colors"])) == 3
    assert json.loads(found["pixel_mean"]) == list(cfg.MODEL.PIXEL_MEAN)
    assert found["normalization"] == "inside"
    assert found["format"] == cfg.INPUT.FORMAT
    assert "META_ARCHITECTURE: UNet" in found["config"]
    sizes = [d.dim_param or d.dim_value for d in file.graph.input[0].type.tensor_type.shape.dim]
    assert sizes == ["batch", 3, "height", "width"]


def test_segnet_needs_standard_operators_only(tmp_path):
    onnx = pytest.importorskip("onnx")
    file = onnx.load(export_model(*system("segnet_basic"), "onnx", tmp_path).path)
    assert {node.domain for node in file.graph.node} == {""}
    assert not file.functions


def test_torchscript_carries_metadata_and_loads_without_the_package(tmp_path):
    path = export_model(*system("segnet"), "torchscript", tmp_path).path
    code = (
        "import json, sys, torch; extra = {'classes': ''};"
        f"net = torch.jit.load({str(path)!r}, _extra_files=extra);"
        "print(json.loads(extra['classes'])[0], *net(torch.zeros(1, 3, 40, 50)).shape);"
        "assert 'seg_plugins' not in sys.modules"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["class_0", "1", "3", "40", "50"]


@pytest.mark.parametrize("kind", ["onnx", "torchscript"])
@pytest.mark.parametrize(
    "config", ["shapes/mask_rcnn_r18_fpn.yaml", "shapes/mask_rcnn_r18_c4.yaml"]
)
def test_mask_rcnn(config, kind, tmp_path):
    cfg = load_config(config, MASK_RCNN)
    result = export_model(cfg, build_model(cfg).eval(), kind, tmp_path)
    assert all(check.count for check in result.checks), "nothing was detected, nothing compared"
    if kind == "onnx":
        onnx = pytest.importorskip("onnx")
        file = onnx.load(result.path)
        assert "RoiAlign" in {node.op_type for node in file.graph.node}
        assert file.opset_import[0].version >= 16
        assert {node.domain for node in file.graph.node} == {""}
        # What INT8 quantises is the network: where regions lie stays in float.
        network = {node.op_type for node in network_nodes(file)}
        assert {"Conv", "ConvTranspose", "RoiAlign"} <= network
        assert not network & {"Mul", "Clip", "Concat", "Exp", "Sigmoid", "NonZero", "TopK"}


def test_a_wrong_file_fails_and_is_not_left(tmp_path, monkeypatch):
    cfg, model = system("unet_same")
    monkeypatch.setattr(
        "seg_plugins.export.export.torchscript_runner",
        lambda path, names: (
            lambda images: {"logits": torch.zeros(len(images), 3, *images.shape[2:])}
        ),
    )
    with pytest.raises(ExportError, match="disagrees with the model"):
        export_model(cfg, model, "torchscript", tmp_path)
    assert not list(tmp_path.iterdir())


def test_detections_of_nearly_equal_scores_may_change_places():
    expected = {
        "boxes": torch.tensor([[0.0, 0, 8, 8], [20, 20, 30, 30], [0, 0, 8, 8]]),
        "scores": torch.tensor([0.9, 0.500001, 0.5]),
        "classes": torch.tensor([0, 1, 2]),
    }
    swapped = {name: value[[0, 2, 1]] for name, value in expected.items()}
    images = [torch.ones(3, 32, 32)]
    (check,) = verify.compare(lambda x: swapped, lambda x: expected, images)
    assert set(check.differences.values()) == {0.0}
    for name, wrong in (("boxes", 0.5), ("scores", 0.01), ("classes", 1)):
        other = {key: value.clone() for key, value in swapped.items()}
        other[name][1] += wrong
        with pytest.raises(ExportError, match="disagrees"):
            list(verify.compare(lambda x, other=other: other, lambda x: expected, images))


def test_nan_is_a_difference():
    bad = {"logits": torch.full((1, 2), np.nan)}
    with pytest.raises(ExportError):
        list(
            verify.compare(lambda x: bad, lambda x: {"logits": torch.zeros(1, 2)}, [torch.ones(1)])
        )


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["MODEL.INFERENCE.FLIP", True], "FLIP False"),
        (["MODEL.INFERENCE.SCALES", [0.5, 1.0]], r"SCALES \[1.0\]"),
    ],
)
def test_inference_that_fits_no_graph_is_refused(opts, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        export_model(*system("unet_same", *opts), "onnx", tmp_path)


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="'coreml' is not one of onnx"):
        export_model(*system("unet_same"), "coreml", tmp_path)


def test_no_weights_are_an_error():
    with pytest.raises(RuntimeError, match="--weights"):
        load_for_export("quickstart/unet_shapes.yaml", "", ["MODEL.WEIGHTS", ""])


def test_safetensors_load_as_weights(tmp_path):
    cfg, model = system("unet_same")
    path = export_model(cfg, model, "safetensors", tmp_path).path
    config, own = SYSTEMS["unet_same"]
    _, loaded = load_for_export(config, str(path), [*HEAD, *own])
    expected = model.state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in loaded.state_dict().items())
