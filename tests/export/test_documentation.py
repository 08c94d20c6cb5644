"""The snippets of docs/export.md and README.md run as they stand, without this package."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from seg_plugins import load_config
from seg_plugins.export import export_model

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

ROOT = Path(__file__).parents[2]

# Importing one of these fails, as if it were not installed.
ABSENT = """
import sys
for name in ("seg_plugins", "torch", "torchvision", "detectron2", "onnx", "{other}"):
    sys.modules[name] = None
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A folder with an ONNX file and an image, and the labels that the model gives it."""
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("exported")
    cfg = load_config("quickstart/unet_shapes.yaml", ["MODEL.DEVICE", "cpu", "MODEL.UNET.WIDTH", 4])
    model = build_model(cfg).eval()
    export_model(cfg, model, "onnx", folder)
    if find_spec("openvino"):
        export_model(cfg, model, "openvino", folder)
    image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
    np.save(folder / "image.npy", image)
    with torch.no_grad():
        scores = model([{"image": torch.from_numpy(image).permute(2, 0, 1)}])[0]["sem_seg"]
    return folder, scores.argmax(0).numpy()


def run_snippet(page: str, runtime: str, folder: Path) -> str:
    """Run the one snippet of a page with that runtime alone; returns what it prints."""
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)
    (snippet,) = (text for text in snippets if "labels.npy" in text and f"import {runtime}" in text)
    absent = ABSENT.format(other=({"onnxruntime", "openvino"} - {runtime}).pop())
    (folder / "run.py").write_text(absent + snippet)
    result = subprocess.run([sys.executable, "run.py"], cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize(
    ("page", "runtime"),
    [
        ("docs/export.md", "onnxruntime"),
        ("README.md", "onnxruntime"),
        ("docs/export.md", "openvino"),
    ],
)
def test_the_snippet_needs_its_runtime_and_numpy_only(page, runtime, exported):
    pytest.importorskip(runtime)
    folder, expected = exported
    (folder / "labels.npy").unlink(missing_ok=True)
    assert "disc" in run_snippet(page, runtime, folder)
    assert (np.load(folder / "labels.npy") == expected).mean() > 0.999
    if page.startswith("docs") and runtime == "onnxruntime":
        assert np.load(folder / "colored.npy").shape == (70, 90, 3)
