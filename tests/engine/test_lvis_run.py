"""LVIS from its file to its figures; a run with repeated images goes on as if without a break."""

from __future__ import annotations

import json

from seg_plugins import load_config
from seg_plugins.data import Dataset
from seg_plugins.engine import Trainer, argument_parser, setup

import numpy as np
import pytest
import torch
from detectron2 import model_zoo
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_lvis_instances
from PIL import Image

OPTS = [
    *("MODEL.DEVICE", "cpu", "SOLVER.AMP.ENABLED", "False", "SOLVER.IMS_PER_BATCH", "2"),
    *("SOLVER.MAX_ITER", "6", "SOLVER.STEPS", "()", "SOLVER.CHECKPOINT_PERIOD", "3", "SEED", "7"),
    *("SOLVER.WARMUP_ITERS", "1", "DATALOADER.NUM_WORKERS", "0", "DATASETS.TEST", "('lvis_few',)"),
    *("TEST.PICTURES", "0", "TEST.REPORT", "False", "DATASETS.CHECK_SAMPLES", "0"),
    *("DATASETS.TRAIN", "('lvis_few',)", "MODEL.ROI_HEADS.NUM_CLASSES", "2"),
    *("INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64"),
    *("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler"),
    *("DATALOADER.REPEAT_THRESHOLD", "0.8"),
]


@pytest.fixture
def few(tmp_path):
    """Five images of a square; in one of them it has the rare class."""
    content = {"images": [], "annotations": [], "categories": [
        {"id": 4, "name": "often", "frequency": "f"}, {"id": 9, "name": "rare", "frequency": "r"},
    ]}  # fmt: skip
    folder = tmp_path / "coco/train2017"
    folder.mkdir(parents=True)
    for number in range(1, 6):
        pixels = np.zeros((64, 64, 3), np.uint8)
        pixels[10:40, 10:40] = 50 * number
        Image.fromarray(pixels).save(folder / f"{number}.jpg")
        content["images"].append({
            "id": number, "height": 64, "width": 64, "neg_category_ids": [],
            "coco_url": f"http://images.cocodataset.org/train2017/{number}.jpg",
            "not_exhaustive_category_ids": [],
        })  # fmt: skip
        content["annotations"].append({
            "id": number, "image_id": number, "category_id": 9 if number == 5 else 4,
            "bbox": [10, 10, 30, 30], "area": 900,
            "segmentation": [[10, 10, 40, 10, 40, 40, 10, 40]],
        })  # fmt: skip
    file = tmp_path / "few.json"
    file.write_text(json.dumps(content))
    register_lvis_instances("lvis_few", {}, str(file), f"{tmp_path}/coco/")
    yield
    DatasetCatalog.remove("lvis_few")
    MetadataCatalog.remove("lvis_few")
    Dataset.forget("lvis_few")


def trained(folder, resume: bool = False, until: int | None = None):
    arguments = ["--config-file", "shapes/mask_rcnn_r18_fpn.yaml", *(["--resume"] * resume)]
    args = argument_parser().parse_args([*arguments, *OPTS, "OUTPUT_DIR", str(folder)])
    trainer = Trainer(setup(args))
    trainer.resume_or_load(resume=resume)
    original = trainer.after_step

    def after_step():
        original()
        if trainer.iter + 1 == until:
            raise KeyboardInterrupt

    trainer.after_step = after_step
    if until is None:
        trainer.train()
    else:
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
    return trainer


@pytest.mark.slow
def test_a_resumed_run_with_repeats_is_the_same_and_is_scored(few, tmp_path):
    whole = trained(tmp_path / "whole")
    trained(tmp_path / "broken", until=4)
    second = trained(tmp_path / "broken", resume=True)
    assert second.start_iter == 3
    expected = second.model.state_dict()
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, expected[name]), name
    results = json.loads((tmp_path / "whole/inference/instances_results.json").read_text())
    for group in ("bbox", "segm"):
        figures = results["results"][group]
        assert {"AP", "AP50", "APr", "APf"} <= set(figures)
        assert 0 <= figures["APr"] <= 100
        assert figures["APc"] is None, "no class is common"


def test_the_configuration_is_detectron2s():
    ours = load_config("lvis/mask_rcnn_r50_fpn_1x.yaml")
    theirs = model_zoo.get_config("LVISv1-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml")
    for key in ("MODEL.ROI_HEADS", "MODEL.RPN", "MODEL.ROI_BOX_HEAD", "DATASETS.TRAIN",
                "DATASETS.TEST", "TEST.DETECTIONS_PER_IMAGE", "SOLVER.STEPS", "SOLVER.MAX_ITER",
                "SOLVER.BASE_LR", "SOLVER.IMS_PER_BATCH", "INPUT.MIN_SIZE_TRAIN", "MODEL.WEIGHTS",
                "DATALOADER.SAMPLER_TRAIN", "DATALOADER.REPEAT_THRESHOLD"):  # fmt: skip
        a, b = ours, theirs
        for part in key.split("."):
            a, b = a[part], b[part]
        for name in b if isinstance(b, dict) else ():
            assert a[name] == b[name], f"{key}.{name}"
        assert isinstance(b, dict) or a == b, key
