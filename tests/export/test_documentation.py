"""The snippet of docs/export.md runs as it stands, without this package and PyTorch."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from seg_plugins import load_config
from seg_plugins.export import export_model

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

PAGE = Path(__file__).parents[2] / "docs" / "export.md"

# Importing one of these fails, as if it were not installed.
ABSENT = """
import sys
for name in ("seg_plugins", "torch", "torchvision", "detectron2", "onnx"):
    sys.modules[name] = None
"""


def test_the_snippet_needs_onnxruntime_and_numpy_only(tmp_path):
    pytest.importorskip("onnxruntime")
    cfg = load_config("quickstart/unet_shapes.yaml", ["MODEL.DEVICE", "cpu", "MODEL.UNET.WIDTH", 4])
    model = build_model(cfg).eval()
    export_model(cfg, model, "onnx", tmp_path)
    image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
    np.save(tmp_path / "image.npy", image)
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    (tmp_path / "run.py").write_text(ABSENT + snippet)
    result = subprocess.run(
        [sys.executable, "run.py"], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("disc: ")
    with torch.no_grad():
        scores = model([{"image": torch.from_numpy(image).permute(2, 0, 1)}])[0]["sem_seg"]
    labels = np.load(tmp_path / "labels.npy")
    assert (labels == scores.argmax(0).numpy()).mean() > 0.999
    assert np.load(tmp_path / "colored.npy").shape == (70, 90, 3)
