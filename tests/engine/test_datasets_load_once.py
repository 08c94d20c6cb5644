"""Whatever a run asks of a dataset, its loader runs and its annotation file is opened once."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

from seg_plugins.data.doctor import check_dataset
from seg_plugins.data.training_records import training_records
from seg_plugins.engine import Trainer, argument_parser, setup
from seg_plugins.prediction.labels import labels_from_config

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.utils.logger import setup_logger
from PIL import Image

OPENED: Counter[str] = Counter()
NAMES = ("once_train", "once_test")


@pytest.fixture(scope="module", autouse=True)
def _count_opened_files():
    counting = [True]

    def note(event, args):  # a hook cannot be taken away again
        if counting and event == "open" and str(args[0]).endswith(".json"):
            OPENED[str(args[0])] += 1

    sys.addaudithook(note)
    yield
    counting.clear()


@pytest.fixture(autouse=True)
def _forget():
    yield
    setup_logger(name="seg_plugins")
    for name in NAMES:
        for catalog in (DatasetCatalog, MetadataCatalog):
            if name in catalog.list():
                catalog.remove(name)


def test_a_loader_of_ones_own_runs_once(tiny_semantic, tiny_args):
    loaded: Counter[str] = Counter()
    for name, tiny in zip(NAMES, tiny_semantic, strict=True):
        records, known = DatasetCatalog.get(tiny), MetadataCatalog.get(tiny).as_dict()

        def load(name=name, records=records):
            loaded[name] += 1
            return records

        DatasetCatalog.register(name, load)
        keys = ("stuff_classes", "stuff_colors", "ignore_label", "evaluator_type")
        MetadataCatalog.get(name).set(**{key: known[key] for key in keys})
    cfg = setup(
        tiny_args(
            "DATASETS.TRAIN", "('once_train',)", "DATASETS.TEST", "('once_test',)",
            "MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS", "median_frequency",
        )
    )  # fmt: skip
    assert loaded == Counter(NAMES)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()  # with an evaluation and pictures
    check_dataset("once_test")
    labels_from_config(cfg)
    assert loaded["once_test"] == 1
    assert Path(cfg.OUTPUT_DIR, "inference", "pictures.png").is_file()


def test_a_coco_file_is_opened_once(tmp_path):
    """The ids of the classes are in the file alone, as register_coco_instances leaves them."""
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "a.png")
    annotation = {
        "id": 1, "image_id": 1, "category_id": 7, "bbox": [2, 2, 9, 9], "area": 81, "iscrowd": 0,
        "segmentation": [[2, 2, 11, 2, 11, 11, 2, 11]],
    }  # fmt: skip
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 32, "width": 32}],
        "categories": [{"id": 7, "name": "nut"}],
        "annotations": [annotation],
    }
    for name in NAMES:
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
        register_coco_instances(name, {}, str(tmp_path / f"{name}.json"), str(tmp_path))
    OPENED.clear()
    args = argument_parser().parse_args(["--config-file", "shapes/mask_rcnn_r18_fpn.yaml"])
    args.num_gpus = 0
    args.opts = [
        "DATASETS.TRAIN", "('once_train',)", "DATASETS.TEST", "('once_test',)",
        "MODEL.ROI_HEADS.NUM_CLASSES", "1", "SOLVER.MAX_ITER", "1", "SOLVER.STEPS", "()",
        "DATALOADER.NUM_WORKERS", "0", "OUTPUT_DIR", str(tmp_path / "run"),
    ]  # fmt: skip
    cfg = setup(args)
    assert Trainer.build_best_metric(cfg).name == "segm/AP"
    assert len(training_records(cfg)) == 1
    labels = labels_from_config(cfg)
    assert [(label.name, label.category_id) for label in labels.things] == [("nut", 7)]
    assert labels.images.id_of(str(tmp_path / "a.png")) == 1
    check_dataset("once_test", other_names=("once_train",))
    opened = {Path(file).stem: count for file, count in OPENED.items() if str(tmp_path) in file}
    assert opened == dict.fromkeys(NAMES, 1)
