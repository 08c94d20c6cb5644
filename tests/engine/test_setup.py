"""What is checked before training starts, and how each mistake is answered."""

from __future__ import annotations

import copy
import os
from pathlib import Path

from seg_plugins import load_config
from seg_plugins.config import ConfigError
from seg_plugins.data import Dataset, DatasetError
from seg_plugins.engine import setup
from seg_plugins.engine.checks.consistency import check_masks, tasks_of
from seg_plugins.engine.train_loader import build_train_loader

import pytest
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (
            ["MODEL.SEM_SEG_HEAD.NUM_CLASSES", "4"],
            r"has 3 classes, the model 4: set MODEL\.SEM_SEG_HEAD\.NUM_CLASSES 3",
        ),
        (
            ["MODEL.SEM_SEG_HEAD.IGNORE_VALUE", "11"],
            r"ignored pixels with 255, .* set MODEL\.SEM_SEG_HEAD\.IGNORE_VALUE 255",
        ),
        (
            ["DATASETS.TRAIN", "('tiny_semantic_trian',)"],
            r"DATASETS\.TRAIN: .*'tiny_semantic_trian'.* Nearest: tiny_semantic_train",
        ),
        (["DATASETS.TEST", "('shapes_val',)"], r"shapes_val has \d classes"),
        (["MODEL.META_ARCHITECTURE", "DeepLab"], r"Nearest: .*DeepLabV3Plus"),
        (
            ["MODEL.META_ARCHITECTURE", "GeneralizedRCNN"],
            r"tiny_semantic_train has no object instances",
        ),
    ],
)
def test_contradictions_name_the_value_to_set(tiny_args, opts, message):
    for name in ("tiny_semantic_train", "tiny_semantic_test"):
        Dataset.forget(name)  # as in a new process, where nothing is loaded yet
    with pytest.raises(ConfigError, match=message):
        setup(tiny_args(*opts))


def test_masks_that_are_left_out_cannot_be_trained_on():
    keys = r"MODEL\.MASK_ON True .* INPUT\.MASK_FORMAT none"
    opts = ["INPUT.MASK_FORMAT", "none"]
    with pytest.raises(ConfigError, match=keys):
        check_masks(load_config("shapes/mask_rcnn_r18_fpn.yaml", opts))
    check_masks(load_config("shapes/mask_rcnn_r18_fpn.yaml", [*opts, "MODEL.MASK_ON", "False"]))
    check_masks(load_config("shapes/mask_rcnn_r18_fpn.yaml"))
    check_masks(load_config("quickstart/unet_shapes.yaml", opts))
    # PanopticMapper makes bitmaps of the segments, whatever the format.
    panoptic = load_config("shapes/panoptic_sem_seg_fpn.yaml", opts)
    assert panoptic.MODEL.MASK_ON
    check_masks(panoptic)
    with pytest.raises(ConfigError, match=keys):
        check_masks(load_config("shapes/panoptic_sem_seg_fpn.yaml",
                                [*opts, "INPUT.MAPPER", "InstanceMapper"]))  # fmt: skip


def test_no_more_data_workers_than_cores(tiny_args, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5}, raising=False)
    assert setup(tiny_args("DATALOADER.NUM_WORKERS", "4")).DATALOADER.NUM_WORKERS == 2
    log = (tmp_path / "run" / "log.txt").read_text()
    assert log.count("DATALOADER.NUM_WORKERS 4 becomes 2, the cores of this process") == 1
    one = tiny_args("DATALOADER.NUM_WORKERS", "1", "OUTPUT_DIR", str(tmp_path / "one"))
    assert setup(one).DATALOADER.NUM_WORKERS == 1


def test_nothing_is_written_when_a_check_fails(tiny_args, tmp_path):
    with pytest.raises(ConfigError):
        setup(tiny_args("MODEL.SEM_SEG_HEAD.NUM_CLASSES", "4"))
    assert not (tmp_path / "run").exists()


def test_a_used_output_folder_is_not_overwritten(tiny_args, tmp_path):
    setup(tiny_args())
    with pytest.raises(ConfigError, match=r"not empty. Add --resume .* OUTPUT_DIR .*run_2"):
        setup(tiny_args())
    assert setup(tiny_args(resume=True)).OUTPUT_DIR == setup(tiny_args(eval_only=True)).OUTPUT_DIR
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        setup(tiny_args("OUTPUT_DIR", str(tmp_path / "file")))


def test_damaged_samples_stop_the_run_before_it_starts(tiny_args, tmp_path):
    record = dict(DatasetCatalog.get("tiny_semantic_train")[0])
    broken = tmp_path / "broken_label.png"
    broken.write_bytes(Path(record["sem_seg_file_name"]).read_bytes()[:60])
    DatasetCatalog.register("broken", lambda: [{**record, "sem_seg_file_name": str(broken)}])
    metadata = MetadataCatalog.get("tiny_semantic_train").as_dict()
    MetadataCatalog.get("broken").set(**{**metadata, "name": "broken"})
    try:
        args = tiny_args("DATASETS.TRAIN", "('broken',)")
        with pytest.raises(ConfigError, match=r"1 errors in 1 of 1 samples:\n.*broken_label\.png"):
            setup(args)
        args.opts += ["DATASETS.CHECK_SAMPLES", "0"]
        setup(args)
    finally:
        DatasetCatalog.remove("broken")
        MetadataCatalog.remove("broken")


def test_the_seed_of_an_unseeded_run_is_written_down(tiny_args, tmp_path):
    cfg = setup(tiny_args("SEED", "-1"))
    assert cfg.SEED >= 0
    written = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert written["SEED"] == cfg.SEED


def test_without_a_gpu_the_cpu_is_used_and_said_once(tiny_args, tmp_path):
    assert setup(tiny_args()).MODEL.DEVICE == "cpu"
    assert (tmp_path / "run" / "log.txt").read_text().count("Running on the CPU") == 1


def test_tasks_of_detectron2s_own_architectures():
    assert tasks_of("PanopticFPN") == ("sem_seg", "instances")
    assert tasks_of("DeepLabV3Plus") == ("sem_seg",)


def register(name, records, **metadata):
    DatasetCatalog.register(name, lambda: records)
    MetadataCatalog.get(name).set(**metadata)


def test_a_set_of_crowds_alone_is_refused_with_its_count():
    box = {"bbox": [0, 0, 4, 4], "bbox_mode": 0, "category_id": 0, "iscrowd": 1}
    record = {"file_name": "a.png", "image_id": 1, "height": 8, "width": 8, "annotations": [box]}
    register("crowds", [record] * 3, thing_classes=["thing"])
    opts = ["DATASETS.TRAIN", "('crowds',)", "SEED", "1", "DATALOADER.NUM_WORKERS", "0"]
    try:
        cfg = load_config("shapes/mask_rcnn_r18_fpn.yaml", opts)
        message = r"3 of the 3 annotations are crowds.*\.FILTER_EMPTY_ANNOTATIONS False"
        with pytest.raises(DatasetError, match=message):
            build_train_loader(cfg, copy.copy)
        cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
        assert len(build_train_loader(cfg, copy.copy).stream) == 3
        cfg.DATASETS.TRAIN = ()
        with pytest.raises(DatasetError, match="no sample"):
            build_train_loader(cfg, copy.copy)
    finally:
        DatasetCatalog.remove("crowds")
        MetadataCatalog.remove("crowds")


def test_a_batch_larger_than_the_set_is_told(tiny_semantic, caplog):
    opts = ["DATASETS.TRAIN", "('tiny_semantic_train',)", "SOLVER.IMS_PER_BATCH", "16"]
    cfg = load_config("quickstart/unet_shapes.yaml", [*opts, "SEED", "1"])
    assert len(Dataset.get("tiny_semantic_train").records) == 8
    build_train_loader(cfg, copy.copy)
    assert Dataset.loaded("tiny_semantic_train") is None, "two copies of the records are kept"
    assert "8 images, fewer than SOLVER.IMS_PER_BATCH 16" in caplog.text


def test_a_set_without_samples_is_told_before_training(custom, tiny_args, tmp_path):
    """An eighth of 3 images is none to evaluate on; the advice is followed."""
    for i in (2, 3, 4, 5, 6, 7):
        for folder in ("images", "masks"):
            for file in (tmp_path / folder).glob(f"*_train_{i}.png"):
                file.unlink()
    for file in [*tmp_path.glob("images/*_test_*"), *tmp_path.glob("masks/*_test_*")]:
        file.unlink()
    text = custom.read_text()
    custom.write_text(text.replace("0.25", "0.2"))
    args = tiny_args("DATASETS.CUSTOM", str(custom))
    message = r"val_fraction 0\.2 of 2 samples leaves none to validate.*val_fraction: 0\.5"
    with pytest.raises(DatasetError, match=message):
        setup(args)
    assert not (tmp_path / "run").exists()
    for number, fraction in enumerate(("0.5", "0")):
        custom.write_text(text.replace("0.25", fraction))
        opts = ["DATASETS.CUSTOM", str(custom), "OUTPUT_DIR", str(tmp_path / str(number))]
        assert len(setup(tiny_args(*opts)).DATASETS.TEST) == (fraction != "0")
