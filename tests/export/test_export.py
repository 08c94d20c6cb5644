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
from seg_plugins.export.semantic import Graph, prepare, window_of
from seg_plugins.modeling.inference import SlidingWindow

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from torch import nn

HEAD = ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 3, "MODEL.DEVICE", "cpu")
TIMM = ("MODEL.BACKBONE.NAME", "build_timm_backbone", "MODEL.TIMM.NAME", "resnet18")
# Small, with the structure kept: every way of joining maps, even and odd sizes, both paddings.
SYSTEMS: dict[str, tuple[str, list]] = {
    "fcn": (
        "_base_/fcn.yaml",
        ["MODEL.VGG.DEPTH", 11, "MODEL.VGG.WIDTH", 16, "MODEL.VGG.FC_CHANNELS", 32],
    ),
    "unet": (
        "_base_/unet.yaml",
        [
            *("MODEL.UNET.DEPTH", 3, "MODEL.UNET.WIDTH", 16),
            *("MODEL.SEM_SEG_HEAD.IN_FEATURES", ["enc1", "enc2", "enc3"]),
        ],
    ),
    "unet_same": (
        "_base_/unet.yaml",
        [
            *("MODEL.UNET.DEPTH", 3, "MODEL.UNET.WIDTH", 16, "MODEL.UNET.UPSAMPLING", "bilinear"),
            *("MODEL.SEM_SEG_HEAD.IN_FEATURES", ["enc1", "enc2", "enc3"]),
            *("MODEL.UNET.PADDING", "same", "MODEL.UNET.NORM", "BN"),
        ],
    ),
    "segnet": ("_base_/segnet.yaml", ["MODEL.VGG.WIDTH", 16]),
    "segnet_basic": ("_base_/segnet_basic.yaml", ["MODEL.SEGNET.BASIC_WIDTH", 16]),
    "deeplabv3plus_timm": (
        "_base_/deeplabv3plus.yaml",
        [
            *(*TIMM, "MODEL.TIMM.OUT_FEATURES", ["res2", "res5"], "MODEL.TIMM.OUTPUT_STRIDE", 16),
            *("MODEL.SEM_SEG_HEAD.NORM", "BN", "MODEL.SEM_SEG_HEAD.ASPP_CHANNELS", 32),
        ],
    ),
    "deeplabv3plus_resnet": (
        "_base_/deeplabv3plus.yaml",
        [
            *("MODEL.RESNETS.DEPTH", 50, "MODEL.RESNETS.WIDTH_PER_GROUP", 16),
            *("MODEL.RESNETS.RES2_OUT_CHANNELS", 64, "MODEL.RESNETS.NORM", "BN"),
            *("MODEL.SEM_SEG_HEAD.NORM", "BN", "MODEL.SEM_SEG_HEAD.ASPP_CHANNELS", 32),
        ],
    ),
    "patch_classifier": (
        "_base_/patch_classifier.yaml",
        ["MODEL.PATCH.KERNELS", [4, 3], "MODEL.PATCH.CHANNELS", 16, "MODEL.PATCH.HIDDEN", 32],
    ),
}
FAST = ("segnet", "unet", "unet_same")
SLIDE = [
    *("MODEL.INFERENCE.MODE", "slide", "MODEL.INFERENCE.WINDOW", [48, 64]),
    *("MODEL.INFERENCE.STRIDE", [24, 40]),
]
MASK_RCNN = [
    *("MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.145),
]


def system(name: str, *opts: object):
    """Configuration and model, with weights and statistics that no layer ignores."""
    config, own = SYSTEMS[name]
    cfg = load_config(config, [*HEAD, *own, *opts])
    model = build_model(cfg)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return cfg, model.eval()


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


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "torchscript"])
@pytest.mark.parametrize("name", SYSTEMS)
def test_sliding_windows(name, kind, tmp_path):
    export_model(*system(name, *SLIDE), kind, tmp_path)


@pytest.mark.parametrize("gaussian", [True, False])
def test_the_loop_in_the_file_is_the_sliding_window(gaussian):
    _, model = system("unet_same", *SLIDE, "MODEL.INFERENCE.GAUSSIAN", gaussian)
    images = torch.rand(2, 3, 101, 90) * 255
    graph = Graph(prepare(model), window_of(model))
    normal = (images - model.pixel_mean) / model.pixel_std
    with torch.no_grad():
        expected = SlidingWindow([48, 64], [24, 40], gaussian=gaussian)(model, normal)
        torch.testing.assert_close(graph(images), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["onnx", "torchscript"])
def test_an_image_smaller_than_the_window_is_an_error_not_a_wrong_result(kind, tmp_path):
    path = export_model(*system("unet_same", *SLIDE), kind, tmp_path).path
    run = verify.onnx_runner(path) if kind == "onnx" else verify.torchscript_runner(path, ["y"])
    reasons = r"(invalid indice|out of data bounds|smaller than the window)"
    with pytest.raises(ExportError, match=rf"{path.name}.*1 x 3 x 40 x 200.*{reasons}.*WINDOW"):
        run(torch.zeros(1, 3, 40, 200))
    with pytest.raises(ExportError, match=r"1 x 4 x 100 x 200.*as many channels"):
        run(torch.zeros(1, 4, 100, 200))


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
        (["MODEL.INFERENCE.MODE", "overlap_tile", "MODEL.INFERENCE.CONTEXT", 16], "MODE whole"),
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
