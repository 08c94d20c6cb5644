"""Windows and tiles: the loop in a file gives what the system does."""

from __future__ import annotations

from seg_plugins.export import ExportError, export_model, verify
from seg_plugins.export.openvino_file import openvino_runner
from seg_plugins.export.semantic import prepare
from seg_plugins.export.windows import graph_of, script_of
from seg_plugins.modeling.inference import OverlapTile, SlidingWindow

import pytest
import torch
from exported_systems import SLIDE, SYSTEMS, TILES, system


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "torchscript"])
@pytest.mark.parametrize("name", SYSTEMS)
def test_sliding_windows(name, kind, tmp_path):
    export_model(*system(name, *SLIDE), kind, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "torchscript"])
@pytest.mark.parametrize("name", ["fcn", "unet", "segnet", "deeplabv3plus_timm"])
def test_tiles_with_context(name, kind, tmp_path):
    export_model(*system(name, *TILES), kind, tmp_path)


# Several tiles, a part of one, and one pixel: what lies outside is mirrored.
@pytest.mark.parametrize("size", [(101, 90), (20, 17), (48, 128), (1, 1)])
@pytest.mark.parametrize("context", [0, 16])
@pytest.mark.parametrize("form", [graph_of, script_of])
def test_the_loop_in_the_file_is_the_overlap_tile(form, context, size):
    _, model = system("unet_same", *TILES, "MODEL.INFERENCE.CONTEXT", context)
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)) * 255
    file = form(prepare(model)).eval()
    file = torch.jit.script(file) if form is script_of else file
    with torch.no_grad():
        expected = OverlapTile([48, 64], context)(
            model, (images - model.pixel_mean) / model.pixel_std
        )
        torch.testing.assert_close(file(images), expected, rtol=1e-4, atol=1e-4)
    if size == (101, 90):  # the tiles do make a difference
        with torch.no_grad():
            whole = model.logits((images - model.pixel_mean) / model.pixel_std)
        assert (whole - expected).abs().max() > 1e-2


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_a_file_of_tiles_takes_smaller_images(kind, tmp_path):
    pytest.importorskip({"onnx": "onnxruntime"}.get(kind, kind))
    _, model = pair = system("unet_same", *TILES)
    path = export_model(*pair, kind, tmp_path).path
    run = (verify.onnx_runner if kind == "onnx" else openvino_runner)(path)
    for size in ((1, 1), (30, 70)):
        images = torch.full((1, 3, *size), 99.0)
        with torch.no_grad():
            expected = model([{"image": images[0]}])[0]["sem_seg"]
        torch.testing.assert_close(run(images)["logits"][0], expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("gaussian", [True, False])
def test_the_loop_in_the_file_is_the_sliding_window(gaussian):
    _, model = system("unet_same", *SLIDE, "MODEL.INFERENCE.GAUSSIAN", gaussian)
    images = torch.rand(2, 3, 101, 90) * 255
    graph = graph_of(prepare(model))
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
