from __future__ import annotations

from seg_plugins.ops import roi_align
from seg_plugins.ops._extension import load_extension
from seg_plugins.ops.roi_align_onnx import onnx_translations

import pytest
import torch

pytestmark = pytest.mark.skipif(
    not load_extension().loaded, reason=f"not built: {load_extension().reason}"
)
BOXES = torch.tensor([[0, 1.5, 2, 20, 17], [1, 3, 3, 60, 50], [1, 8, 0, 12, 9]])


class Pool(torch.nn.Module):
    def __init__(self, levels, aligned, reduce="avg"):
        super().__init__()
        self.scales = [0.5**i / 2 for i in range(levels)]
        self.options = {"aligned": aligned, "reduce": reduce, "sampling_ratio": 2}

    def forward(self, maps, boxes):
        return roi_align(maps, boxes, (3, 2), self.scales, **self.options)


def export(model, maps, path):
    pytest.importorskip("onnxscript")
    torch.onnx.export(
        model,
        (maps, BOXES),
        path,
        dynamo=True,
        verbose=False,
        dynamic_shapes=([{} for _ in maps], {0: torch.export.Dim("count", min=2)}),
        custom_translation_table=onnx_translations(),
    )


@pytest.mark.parametrize("aligned", [True, False])
def test_one_level_is_the_standard_operator(tmp_path, aligned):
    runtime = pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    maps, model = [torch.randn(2, 3, 32, 32)], Pool(1, aligned)
    export(model, maps, tmp_path / "pool.onnx")
    graph = onnx.load(tmp_path / "pool.onnx").graph
    assert "RoiAlign" in [node.op_type for node in graph.node]
    session = runtime.InferenceSession(tmp_path / "pool.onnx")
    names = [i.name for i in session.get_inputs()]
    (output,) = session.run(None, {names[0]: maps[0].numpy(), names[1]: BOXES[:2].numpy()})
    torch.testing.assert_close(
        torch.from_numpy(output), model(maps, BOXES[:2]), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("model", "message"),
    [(Pool(2, True), "one feature map"), (Pool(1, True, "max"), "another maximum")],
)
def test_what_onnx_cannot_say_is_refused(tmp_path, model, message):
    maps = [torch.randn(2, 3, 32 >> i, 32 >> i) for i in range(len(model.scales))]
    pytest.importorskip("onnxscript")
    translate = onnx_translations()[torch.ops.seg_plugins.roi_align.default]
    maximum = model.options["reduce"] == "max"
    with pytest.raises(ValueError, match=message):
        translate(maps, BOXES, (3, 2), model.scales, 2, True, maximum, 224.0, 4, 1)
