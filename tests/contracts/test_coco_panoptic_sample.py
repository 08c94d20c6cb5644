"""COCO's own panoptic sample: read, checked, trained on, drawn and scored."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from seg_plugins import load_config
from seg_plugins.data import build_mapper, register_custom_dataset
from seg_plugins.evaluation.panoptic import PanopticEvaluator
from seg_plugins.io.images import read_image
from seg_plugins.io.panoptic import read_segment_ids
from seg_plugins.visualization.segments import panoptic

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage

SCRIPT = Path(__file__).parents[2] / "datasets" / "prepare_panoptic_from_masks.py"


@pytest.fixture
def sample(shared_data, tmp_path):
    """Name and record of the sample, registered as a user would."""
    folder = shared_data / "coco_panoptic_samples"
    categories = json.loads((folder / "panoptic_coco_categories.json").read_text())
    description = {
        "name": "coco_panoptic_sample",
        "task": "panoptic",
        "root": str(folder),
        "classes": [
            {"name": c["name"], "color": c["color"], "thing": bool(c["isthing"])}
            for c in categories
        ],
        "train": {
            "images": "input_images",
            "panoptic": "panoptic_examples",
            "json": "panoptic_examples.json",
        },
    }
    path = tmp_path / "sample.yaml"
    path.write_text(json.dumps(description))
    name = register_custom_dataset(path)["train"]
    yield name, DatasetCatalog.get(name)[0]
    DatasetCatalog.pop(name)
    MetadataCatalog.pop(name)


def test_its_own_truth_scores_100(sample):
    name, record = sample
    ids = read_segment_ids(record["pan_seg_file_name"]).astype(np.int32)
    segments = [s for s in record["segments_info"] if not s["iscrowd"]]
    ids[~np.isin(ids, [s["id"] for s in segments])] = 0
    evaluator = PanopticEvaluator(name)
    evaluator.reset()
    evaluator.process([record], [{"panoptic_seg": (torch.from_numpy(ids), segments)}])
    scores = evaluator.evaluate()["panoptic_seg"]
    assert {scores[key] for key in ("PQ", "SQ", "RQ", "PQ_th", "PQ_st")} == {100.0}


def test_the_checker_finds_nothing_wrong(shared_data):
    spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, SCRIPT.stem, module)
        spec.loader.exec_module(module)
        folder = shared_data / "coco_panoptic_samples"
        assert (
            module.check_files(folder / "panoptic_examples.json", folder / "panoptic_examples") == 1
        )


def test_it_is_trained_on_and_drawn(sample):
    name, record = sample
    cfg = load_config(
        "coco/panoptic_bottom_up_r52.yaml",
        [
            *("MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.RESNETS.WIDTH_PER_GROUP", 8),
            *("MODEL.RESNETS.RES2_OUT_CHANNELS", 32, "INPUT.CROP.SIZE", [160, 192]),
            *("DATASETS.TRAIN", (name,), "INPUT.MIN_SIZE_TRAIN", (320,)),
        ],
    )
    samples = [build_mapper(cfg, True)(record, rng=np.random.default_rng(i)) for i in range(2)]
    assert all(s["sem_seg"].shape == (160, 192) for s in samples)
    assert sum(len(s["instances"]) for s in samples) > 3
    with EventStorage():
        losses = build_model(cfg).train()(samples)
    assert all(loss.isfinite() for loss in losses.values())

    image = read_image(record["file_name"], "RGB")
    colors = np.asarray(MetadataCatalog.get(name).stuff_colors, np.uint8)
    ids = read_segment_ids(record["pan_seg_file_name"])
    picture = panoptic(image, ids, record["segments_info"], colors, numbers=False)
    void = ids == 0
    changed = (picture != image).any(axis=2)
    assert changed[~void].mean() > 0.99
    inside_void = void.copy()
    inside_void[:-1] &= void[1:]
    inside_void[:, :-1] &= void[:, 1:]
    assert not changed[inside_void].any()  # but for the outline
