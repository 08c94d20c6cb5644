"""Panoptic systems end to end, with random weights: what they say is what is written."""

from __future__ import annotations

import json

from seg_plugins import load_config
from seg_plugins.evaluation import PanopticEvaluator
from seg_plugins.prediction import Predictor
from seg_plugins.prediction.inputs import find_sources
from seg_plugins.prediction.outputs import OutputOptions
from seg_plugins.prediction.run import RunOptions, run

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model
from PIL import Image

# Random weights give low scores: let them pass.
OPTS = ["MODEL.DEVICE", "cpu", "MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH", "0.1",
        "MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT", "1",
        "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.05"]  # fmt: skip


@pytest.mark.parametrize(
    ("config", "more"),
    [
        ("panoptic_fcn", []),
        (
            "panoptic_bottom_up",
            [
                "MODEL.PANOPTIC_DEEPLAB.CENTER_THRESHOLD",
                "-1.0",
                "MODEL.PANOPTIC_DEEPLAB.STUFF_AREA",
                "1",
            ],
        ),
        (
            "panoptic_fcn",  # Detectron2's own
            ["MODEL.META_ARCHITECTURE", "PanopticFPN", "MODEL.SEM_SEG_HEAD.NAME", "SemSegFPNHead"],
        ),
    ],
)
def test_segments_of_a_panoptic_system_reach_the_evaluator(tmp_path, config, more, request):
    cfg = load_config(f"shapes/{config}.yaml", [*OPTS, *more])
    torch.manual_seed(0)
    torch.save({"model": build_model(cfg).state_dict()}, tmp_path / "weights.pth")
    predictor = Predictor.from_config(cfg, tmp_path / "weights.pth", min_score=0.1)
    image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "12.png")
    saved = OutputOptions(("panoptic", "json", "mask", "overlay", "color", "cutout", "blur"))
    sources = find_sources([str(tmp_path / "12.png")], tmp_path / "out")
    assert run(predictor, sources, tmp_path / "out", RunOptions(saved)).done == 1

    name = f"prediction_as_truth_{request.node.name}"
    metadata = MetadataCatalog.get("shapes_panoptic_val")
    DatasetCatalog.register(name, list)
    MetadataCatalog.get(name).set(
        panoptic_root=str(tmp_path / "out/panoptic"),
        panoptic_json=str(tmp_path / "out/panoptic.json"),
        thing_dataset_id_to_contiguous_id=metadata.thing_dataset_id_to_contiguous_id,
        stuff_dataset_id_to_contiguous_id=metadata.stuff_dataset_id_to_contiguous_id,
    )
    evaluator = PanopticEvaluator(name, distributed=False)
    evaluator.reset()
    prediction = predictor(image)
    assert prediction.panoptic is not None
    ids, segments = prediction.panoptic
    output = {"panoptic_seg": (torch.from_numpy(ids), segments)}
    evaluator.process([{"image_id": 12, "file_name": "12.png"}], [output])
    assert evaluator.evaluate()["panoptic_seg"]["PQ"] == pytest.approx(100)
    content = json.loads((tmp_path / "out/panoptic.json").read_bytes())
    assert len(content["annotations"][0]["segments_info"]) == len(prediction.regions) > 0
    mask = np.asarray(Image.open(tmp_path / "out/mask/12.png"))
    assert np.array_equal(mask, prediction.semantic)
