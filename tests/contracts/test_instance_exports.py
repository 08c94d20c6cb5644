"""Every one-stage system leaves in each format, compared with itself on three sizes."""

from __future__ import annotations

from seg_plugins.export.export import export_model
from seg_plugins.export.instances import OneStageGraph
from seg_plugins.export.openvino_file import openvino_runner
from seg_plugins.export.verify import onnx_runner

import numpy as np
import pytest
import torch
from instance_systems import ONE_STAGE, build, config_of


@pytest.mark.parametrize("kind", ["torchscript", "onnx", "openvino"])
@pytest.mark.parametrize("name", ONE_STAGE)
def test_the_file_gives_what_the_system_finds(name, kind, tmp_path):
    if kind == "openvino":
        pytest.importorskip("openvino")
    model = build(name).eval()
    result = export_model(config_of(name), model, kind, tmp_path)
    assert all(check.count for check in result.checks), "nothing was found, nothing compared"
    if kind == "torchscript":
        # Much larger than what was traced, and higher than wide: nothing of a size is a constant.
        image = torch.randint(0, 256, (3, 380, 290)).float()
        with torch.no_grad():
            found = torch.jit.load(result.path)(image)
            expected = OneStageGraph(model, image).eval()(image)
        assert len(expected[0])
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-4)
        return
    # Levels of one cell, and fewer cells than candidates.
    pixel = torch.full((3, 1, 1), 99.0)
    run = {"onnx": onnx_runner, "openvino": openvino_runner}[kind](result.path)
    with torch.no_grad():
        expected = OneStageGraph(model, pixel).eval()(pixel)[0]
    torch.testing.assert_close(run(pixel)["scores"], expected, rtol=0, atol=1e-3)
    if kind == "openvino":
        return
    onnx = pytest.importorskip("onnx")
    file = onnx.load(result.path)
    assert {node.domain for node in file.graph.node} == {""}
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(result.path, providers=["CPUExecutionProvider"])
    image = torch.randint(0, 256, (3, 75, 101), generator=torch.Generator().manual_seed(3)).float()
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, session.run(None, {"image": image.numpy()}), strict=True))
    with torch.no_grad():
        expected = model([{"image": image}])[0]["instances"]
    assert len(expected)
    # Scores and masks as the finished instances have them, which leaves out empty masks.
    sizes = found["boxes"][:, 2:] - found["boxes"][:, :2]
    kept = (sizes > 0).all(axis=1)
    assert kept.sum() >= len(expected)
    if "masks" in found:
        masks = found["masks"][kept] > 0.5
        assert masks.shape[1:] == (75, 101)
        close = (masks != np.asarray(expected.pred_masks).astype(bool)).mean(axis=(1, 2))
        assert (close < 2e-3).all()
        np.testing.assert_allclose(found["scores"][kept], expected.scores, atol=1e-3)
