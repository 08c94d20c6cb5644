"""Panoptic systems leave with the function that merges: in the place of their models, and alone."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from seg_plugins import load_config
from seg_plugins.config import ConfigError
from seg_plugins.export import export_model
from seg_plugins.export.panoptic import differing_share
from seg_plugins.export.systems import example_images, tensor_system
from seg_plugins.modeling.meta_arch.one_stage import OneStageInstanceSegmentor
from seg_plugins.modeling.test_time.views import Views
from seg_plugins.runtime import FileModel, ModelFileError

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

ROOT = Path(__file__).parents[2]

# Importing one of these fails, as if it were not installed.
ABSENT = """
import sys
for name in ("seg_plugins", "torch", "detectron2", "onnx"):
    sys.modules[name] = None
"""

# The representation of outlines in Mask R-CNN's place.
POLAR = [
    *("MODEL.ONE_STAGE.REPRESENTATION", "PolarMask", "MODEL.POLARMASK.CHANNELS", 32),
    *("MODEL.POLARMASK.IN_FEATURES", ["p3", "p4", "p5"], "MODEL.POLARMASK.NUM_CONVS", 1),
    *("MODEL.POLARMASK.SIZES_OF_INTEREST", [40, 60], "MODEL.POLARMASK.NORM_BY_STRIDE", True),
]


def shapes_system(config: str, *more: object):
    """A small panoptic system that finds something; its logits are in the range of trained ones."""
    torch.manual_seed(0)
    opts = [
        *("MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.145),
        *("MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH", 0.14),
        *("MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT", 64),
        *("MODEL.PANOPTIC_DEEPLAB.CENTER_THRESHOLD", 0.0),
        *more,
    ]
    cfg = load_config(config, opts)
    model = build_model(cfg).eval()
    for name, parameter in model.named_parameters():
        if name.startswith("sem_seg_head.predictor"):
            torch.nn.init.normal_(parameter, std=1e-3)
        if name.endswith(("ins_head.cate_pred.weight", "ins_head.kernel_pred.weight")):  # SOLOv2
            torch.nn.init.normal_(parameter, std=0.1 if "cate" in name else 0.3)
        if name in ("representation.category.weight", "representation.rays.weight"):  # PolarMask
            torch.nn.init.normal_(parameter, std=0.2 if "category" in name else 0.05)
    return cfg, model


@torch.no_grad()
def predicts_as(model, image: torch.Tensor, path: Path, runtime: str) -> None:
    """The file in the place of its model: all three tasks at a size that is not the image's."""
    file = FileModel.open(path, runtime, threads=1)
    sample = {"image": image, "height": 61, "width": 140}
    same_outputs(model([sample])[0], file([sample])[0])
    if hasattr(model, "roi_heads"):
        with pytest.raises(ModelFileError, match="asked for masks in one another's boxes"):
            file.check_test_time_augmentation()
        return
    file.check_test_time_augmentation()
    views = Views(sample, (0, 96), 200, flip=True)
    if isinstance(model, OneStageInstanceSegmentor):
        # A file gives masks of the image's pixels: only of that size are they not resized twice.
        views = Views({"image": image}, (0,), 200, flip=True)
    same_outputs(model.predict_views(views), file.predict_views(views))


def same_outputs(expected, found) -> None:
    assert found.keys() == expected.keys()
    torch.testing.assert_close(found["sem_seg"], expected["sem_seg"], rtol=0, atol=1e-3)
    assert len(found["instances"]) == len(expected["instances"]) > 0
    mine, other = (by_class(out["instances"]) for out in (found, expected))
    assert mine.keys() == other.keys()
    for kind, scores in mine.items():
        torch.testing.assert_close(scores, other[kind], rtol=0, atol=1e-3)
    parts = [
        (ids.numpy(), described)
        for ids, described in (o["panoptic_seg"] for o in (found, expected))
    ]
    assert differing_share(*parts) < 2e-3


def by_class(instances) -> dict[int, torch.Tensor]:
    """Class -> falling scores. Two objects of nearly one score may change places in a file."""
    kinds = instances.pred_classes
    return {
        k: instances.scores[kinds == k].sort(descending=True)[0] for k in kinds.unique().tolist()
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "openvino"])
@pytest.mark.parametrize(
    ("config", "opts"),
    [
        ("shapes/panoptic_sem_seg_fpn.yaml", []),
        ("shapes/panoptic_bottom_up.yaml", []),
        ("shapes/panoptic_adaptis.yaml", []),
        ("shapes/panoptic_solo_v2.yaml", []),
        ("shapes/panoptic_fcn.yaml", []),
        pytest.param("shapes/panoptic_fcn.yaml", POLAR, id="PolarMask"),
    ],
)
def test_panoptic_systems(config, opts, kind, tmp_path):
    pytest.importorskip("onnxruntime" if kind == "onnx" else "openvino")
    cfg, model = shapes_system(config, *opts)
    result = export_model(cfg, model, kind, tmp_path)
    assert {"panoptic.py", result.path.name} <= {file.name for file in result.files}
    predicts_as(model, example_images(cfg, 1, 160, 121)[0], result.path, kind)
    if kind == "openvino":
        return
    image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
    np.save(tmp_path / "image.npy", image)
    page = (ROOT / "docs/export.md").read_text("utf-8")
    snippets = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (snippet,) = (text for text in snippets if "import panoptic" in text)
    (tmp_path / "run.py").write_text(f"{ABSENT}{snippet}\nprint(ids.shape, about['task'])\n")
    out = subprocess.run(
        [sys.executable, "run.py"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert out.stdout == "(70, 90) panoptic\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("opts", "objects"),
    [
        pytest.param(
            [
                *("MODEL.ROI_HEADS.NUM_CLASSES", 1, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 2),
                *("MODEL.PANOPTIC_FPN.THING_IDS", [1]),
            ],
            True,
            id="one class",
        ),
        pytest.param(["MODEL.POLARMASK.SCORE_THRESH_TEST", 0.999], False, id="no detections"),
    ],
)
def test_outlines_of_one_class_and_of_nothing(opts, objects, tmp_path):
    pytest.importorskip("onnxruntime")
    cfg, model = shapes_system("shapes/panoptic_fcn.yaml", *POLAR, *opts)
    result = export_model(cfg, model, "onnx", tmp_path)
    merged = [check.differences["panoptic.py"] for check in result.checks[3:]]
    assert len(merged) == 3
    assert max(merged) < 1e-3
    assert all(bool(check.count) == objects for check in result.checks[:3])


def test_what_a_file_does_not_hold_is_refused():
    cfg, model = shapes_system("shapes/panoptic_bottom_up.yaml")
    with pytest.raises(ConfigError, match="--format onnx or openvino"):
        tensor_system(cfg, model, "torchscript")
    with pytest.raises(ConfigError, match="--format safetensors takes every model"):
        tensor_system(cfg, torch.nn.Identity(), "onnx")
