"""Exported files on the oldest onnxruntime that is said to run them, beside the installed one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from seg_plugins import load_config
from seg_plugins.export import ExportOptions, export_model
from seg_plugins.export.onnx_file import OLDEST_RUNTIME

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

pytestmark = pytest.mark.slow

# `make test-slow` installs it.
OLDEST = Path(__file__).parents[2] / "build/oldest-onnxruntime"
RUN = """
import sys
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
outputs = [output.name for output in session.get_outputs()]
values = session.run(None, {session.get_inputs()[0].name: np.load(sys.argv[2])})
np.savez(sys.argv[3], **dict(zip(outputs, values)))
print(onnxruntime.__version__)
"""
UNET = [
    *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 3, "MODEL.UNET.DEPTH", 3, "MODEL.UNET.WIDTH", 16),
    *("MODEL.SEM_SEG_HEAD.IN_FEATURES", ["enc1", "enc2", "enc3"], "MODEL.UNET.PADDING", "same"),
    *("MODEL.UNET.NORM", "BN"),
]
TILES = [
    *("MODEL.INFERENCE.MODE", "overlap_tile", "MODEL.INFERENCE.WINDOW", [48, 64]),
    *("MODEL.INFERENCE.CONTEXT", 16),
]
FINDS_SOMETHING = ["MODEL.WEIGHTS", "", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.145]


def run(file: Path, image: Path, packages: Path | None) -> tuple[tuple[int, ...], dict]:
    """Version of the onnxruntime found first, and its outputs."""
    out = file.with_name("outputs.npz")
    env = dict(os.environ) | ({"PYTHONPATH": str(packages)} if packages else {})
    done = subprocess.run(
        [sys.executable, "-c", RUN, file, image, out],
        capture_output=True,
        text=True,
        env=env,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return version(done.stdout), dict(np.load(out))


def version(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(".")[:2])


@pytest.mark.parametrize(
    ("config", "opts", "opset"),
    [
        pytest.param("_base_/unet.yaml", UNET, 18, id="semantic-18"),
        pytest.param("_base_/unet.yaml", UNET + TILES, 18, id="tiles-18"),
        pytest.param("shapes/mask_rcnn_r18_fpn.yaml", FINDS_SOMETHING, 16, id="regions-16"),
        pytest.param("shapes/mask_rcnn_r18_fpn.yaml", FINDS_SOMETHING, 17, id="regions-17"),
        pytest.param(
            "shapes/panoptic_bottom_up.yaml", ["MODEL.WEIGHTS", ""], 18, id="bottom-up-18"
        ),
    ],
)
def test_two_versions_give_the_same(config, opts, opset, tmp_path):
    pytest.importorskip("onnxruntime")
    if not OLDEST.is_dir():
        pytest.skip(f"no {OLDEST.name} in build: make test-slow installs it where it can")
    torch.manual_seed(0)
    cfg = load_config(config, ["MODEL.DEVICE", "cpu", *opts])
    model = build_model(cfg).eval()
    path = export_model(cfg, model, "onnx", tmp_path, ExportOptions(opset=opset)).path
    image = np.random.default_rng(0).integers(0, 256, (3, 131, 150)).astype(np.float32)
    np.save(tmp_path / "image.npy", image if config.startswith("shapes/mask") else image[None])
    old, found = run(path, tmp_path / "image.npy", OLDEST)
    new, expected = run(path, tmp_path / "image.npy", None)
    assert version(OLDEST_RUNTIME[opset]) <= old < new
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert value.size, "nothing was found, nothing compared"
        np.testing.assert_allclose(found[name], value, rtol=1e-3, atol=1e-3, err_msg=name)
