"""`train_net.py --data FILE`: the configuration of the task, sizes and channels of the images."""

from __future__ import annotations

import argparse

from seg_plugins.config import ConfigError, Origin, load_config
from seg_plugins.data import DatasetError
from seg_plugins.engine import argument_parser, setup
from seg_plugins.engine.checks.settings import apply_epochs
from seg_plugins.engine.own_data import measure_images, own_config

import cv2
import numpy as np
import pytest
import tifffile
from detectron2.data import DatasetCatalog, MetadataCatalog

QUICK = ("MODEL.WEIGHTS", "", "SEED", "1", "DATALOADER.NUM_WORKERS", "0")


def arguments(data: object, folder: object, *opts: str) -> argparse.Namespace:
    args = argument_parser().parse_args(["--data", str(data)])
    args.num_gpus, args.opts = 0, ["OUTPUT_DIR", str(folder), *QUICK, *opts]
    return args


def test_a_description_alone_sets_everything_up(custom, tmp_path):
    cfg = setup(arguments(custom, tmp_path / "run"))
    assert cfg.MODEL.META_ARCHITECTURE == "DeepLabV3Plus"
    assert cfg.DATASETS.TRAIN == ("tiny_custom_train",)
    assert cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 3
    # 9 images of 48x40 are trained at the smallest size, 128; 30 epochs in batches of 4.
    assert (cfg.INPUT.FORMAT, cfg.INPUT.MIN_SIZE_TEST) == ("RGB", 128)
    assert cfg.INPUT.MIN_SIZE_TRAIN == (96, 128, 160)
    assert list(cfg.INPUT.CROP.SIZE) == [128, 128]
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.WARMUP_ITERS) == (68, 6)
    assert cfg.TEST.EVAL_PERIOD == 13
    # The run's own configuration repeats it without a second count of the data.
    again = load_config(tmp_path / "run" / "config.yaml")
    assert (again.SOLVER.EPOCHS, again.SOLVER.MAX_ITER) == (0, 68)
    assert not again.INPUT.FIT_TO_DATA


def test_what_the_user_sets_stays(custom, tmp_path):
    cfg = setup(arguments(custom, tmp_path / "run", "INPUT.MIN_SIZE_TEST", "96",
                          "SOLVER.EPOCHS", "2", "TEST.EVAL_PERIOD", "0"))  # fmt: skip
    assert (cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MIN_SIZE_TRAIN) == (96, (96, 128, 160))
    assert (cfg.SOLVER.MAX_ITER, cfg.TEST.EVAL_PERIOD) == (5, 0)


def test_a_configuration_beside_the_data_is_taken_as_it_is(custom, tmp_path):
    args = arguments(custom, tmp_path / "run")
    args.config_file = "quickstart/unet_shapes.yaml"
    cfg = setup(args)
    assert cfg.MODEL.META_ARCHITECTURE == "UNet"
    assert (cfg.DATASETS.TRAIN, cfg.INPUT.MIN_SIZE_TEST) == (("tiny_custom_train",), 128)
    assert cfg.SOLVER.MAX_ITER == 1600


def test_a_configuration_for_own_data_is_fitted_by_name_and_as_a_base(custom, tmp_path):
    """The sizes of the first test, whoever chooses; what one's own file says stays."""
    args = arguments(custom, tmp_path / "named", "SOLVER.EPOCHS", "8")
    args.config_file = "own/semantic_unet.yaml"
    cfg = setup(args)
    assert (cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.UNET.PADDING) == ("UNet", "same")
    assert (cfg.INPUT.MIN_SIZE_TRAIN, list(cfg.INPUT.CROP.SIZE)) == ((96, 128, 160), [128, 128])
    assert (cfg.SOLVER.MAX_ITER, cfg.TEST.EVAL_PERIOD) == (18, 3)

    (tmp_path / "mine.yaml").write_text("_BASE_: own/semantic.yaml\nINPUT: {MIN_SIZE_TEST: 64}\n")
    args = arguments(custom, tmp_path / "mine")
    args.config_file = str(tmp_path / "mine.yaml")
    cfg = setup(args)
    assert (cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TEST) == ((96, 128, 160), 64)

    args = arguments(custom, tmp_path / "wrong", "INPUT.CROP.SIZE", "[0.9, 0.9]")
    with pytest.raises(ConfigError, match="whole numbers of pixels"):
        setup(args)
    assert not (tmp_path / "wrong").exists()

    args = arguments("", tmp_path / "none")
    args.config_file = "own/semantic.yaml"
    with pytest.raises(ConfigError, match=r"no dataset is named: give --data FILE"):
        setup(args)


@pytest.mark.parametrize(
    ("task", "config"),
    [
        ("semantic", "own/semantic.yaml"),
        ("instance", "own/instance.yaml"),
        ("panoptic", "own/panoptic.yaml"),
        ("panoptic_separated", "own/panoptic.yaml"),
    ],
)
def test_each_task_has_its_configuration(task, config, tmp_path):
    (tmp_path / "d.yaml").write_text(f"name: d\ntask: {task}\n")
    assert own_config(str(tmp_path / "d.yaml")) == config
    load_config(config)


def test_mistakes_name_the_fix(custom, tmp_path):
    (tmp_path / "d.yaml").write_text("name: d\ntask: keypoints\n")
    with pytest.raises(DatasetError, match=r"d\.yaml: task is 'keypoints'; it should be one of"):
        setup(arguments(tmp_path / "d.yaml", tmp_path / "run"))
    with pytest.raises(DatasetError, match=r"none\.yaml: no such file"):
        setup(arguments(tmp_path / "none.yaml", tmp_path / "run"))
    with pytest.raises(ConfigError, match=r"DATASETS\.CUSTOM say the same"):
        setup(arguments(custom, tmp_path / "run", "DATASETS.CUSTOM", str(custom)))
    args = arguments(custom, tmp_path / "run")
    args.data = ""
    with pytest.raises(ConfigError, match="--config-file FILE, or --data FILE"):
        setup(args)
    assert not (tmp_path / "run").exists()


def records(*names: object) -> list[dict[str, object]]:
    return [{"file_name": str(name)} for name in names]


def test_images_of_other_kinds_are_measured(tmp_path):
    """By hand: two images of 5 channels, channel c of the first is c, of the second 3c."""
    planes = np.broadcast_to(np.arange(5, dtype=np.uint16), (20, 30, 5))
    kind = {"photometric": "minisblack", "planarconfig": "contig"}
    for name, factor in (("a.tif", 1), ("b.tif", 3)):
        tifffile.imwrite(tmp_path / name, factor * planes, **kind)
    facts = measure_images(records(tmp_path / "a.tif", tmp_path / "b.tif"))
    assert (facts.images, facts.height, facts.width, facts.format) == (2, 20, 30, "raw")
    assert facts.mean == (0, 2, 4, 6, 8)
    assert facts.std == (1, 1, 2, 3, 4)  # the first is 0 everywhere: left as it is
    cv2.imwrite(str(tmp_path / "grey.png"), np.zeros((10, 12), np.uint8))
    facts = measure_images(records(tmp_path / "grey.png"))
    assert (facts.format, facts.height, facts.width, facts.mean) == ("RGB", 10, 12, ())
    np.save(tmp_path / "nan.npy", np.full((4, 5, 2), np.nan, np.float32))
    with pytest.raises(DatasetError, match=r"nan\.npy: no pixel is a finite number"):
        measure_images(records(tmp_path / "nan.npy"))
    with pytest.raises(DatasetError, match="there is no image to train on"):
        measure_images([])
    with pytest.raises(DatasetError, match=r"grey\.png has 1 channels, .*a\.tif has 5"):
        measure_images(records(tmp_path / "a.tif", tmp_path / "grey.png"))


def epochs_of(*opts: str) -> tuple[int, tuple[int, ...]]:
    opts = ("DATASETS.TRAIN", "('ten',)", "SOLVER.IMS_PER_BATCH", "4", *opts)
    cfg = load_config("dsb2018/mask_rcnn_r18_fpn.yaml", opts)
    apply_epochs(cfg, Origin("dsb2018/mask_rcnn_r18_fpn.yaml", opts))
    assert cfg.SOLVER.EPOCHS == 0
    return cfg.SOLVER.MAX_ITER, tuple(cfg.SOLVER.STEPS)


@pytest.fixture
def ten():
    """Ten images, nine of them with an object: two passes are five batches of four."""
    box = {"bbox": [0, 0, 4, 4], "bbox_mode": 0, "category_id": 0, "iscrowd": 0}
    box["segmentation"] = [[0, 0, 4, 0, 4, 4, 0, 4]]
    found = [
        {"file_name": f"{i}", "image_id": i, "height": 9, "width": 9, "annotations": [box]}
        for i in range(9)
    ]
    found.append({**found[0], "image_id": 9, "annotations": []})
    DatasetCatalog.register("ten", lambda: found)
    MetadataCatalog.get("ten").set(thing_classes=["thing"], evaluator_type="coco")
    yield
    DatasetCatalog.remove("ten")
    MetadataCatalog.remove("ten")


def test_epochs_become_iterations_and_steps_keep_their_places(ten, caplog):
    # The file has 1900 and 2300 of 2500.
    assert epochs_of() == (2500, (1900, 2300))
    assert epochs_of("SOLVER.EPOCHS", "40") == (90, (68, 83))
    assert epochs_of("SOLVER.EPOCHS", "0.1") == (1, (1,))
    assert epochs_of("SOLVER.EPOCHS", "40", "SOLVER.STEPS", "(7,)") == (90, (7,))
    every = ("DATALOADER.FILTER_EMPTY_ANNOTATIONS", "False")
    assert epochs_of("SOLVER.EPOCHS", "40", *every)[0] == 100
    with pytest.raises(ConfigError, match=r"EPOCHS 2 and SOLVER\.MAX_ITER 5 both say"):
        epochs_of("SOLVER.EPOCHS", "2", "SOLVER.MAX_ITER", "5")
    assert "have no object" not in caplog.text, "training counts them, and tells"
