"""Settings that match nothing, contradict each other or cannot work: refused, or told."""

from __future__ import annotations

import argparse
import logging

from seg_plugins import load_config
from seg_plugins.config import ConfigError, Origin, config_root, get_config_file
from seg_plugins.engine.checks.settings import (
    check_training,
    complete_schedule,
    tell_rate,
)
from seg_plugins.engine.checks.values import check_values
from seg_plugins.engine.command_line import launch
from seg_plugins.engine.solver import SCHEDULES, build_schedule

import pytest
import torch
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY

LEAF = "quickstart/deeplabv3plus_r18_shapes.yaml"


def own_file(folder, text):
    file = folder / "own.yaml"
    file.write_text(f"_BASE_: {get_config_file(LEAF)}\n{text}\n")
    return file


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("SOLVER.MAX_ITER", "0", "at least 1"),
        ("SOLVER.IMS_PER_BATCH", "0", "at least 1"),
        ("SOLVER.BASE_LR", "-0.1", "at least 0"),
        ("SOLVER.BASE_LR", "1e999", "at least 0"),
        ("SOLVER.MOMENTUM", "1", "below 1, e.g. SOLVER.MOMENTUM 0.9"),
        ("SOLVER.WARMUP_ITERS", "-1", "at least 0"),
        ("SOLVER.WARMUP_FACTOR", "2", "at most 1"),
        ("SOLVER.WARMUP_METHOD", "burnin", "not one of linear, constant"),
        ("SOLVER.LR_SCHEDULER_NAME", "Cosine", "WarmupCosineLR"),
        ("SOLVER.OPTIMIZER", "Adam", "not one of SGD, AdamW"),
        ("SOLVER.CHECKPOINT_PERIOD", "-1", "at least 0"),
        ("SOLVER.KEEP_CHECKPOINTS", "-1", "at least 0"),
        ("SOLVER.MAX_SKIPPED_BATCHES", "-1", "at least 0"),
        ("SOLVER.EARLY_STOPPING.PATIENCE", "-1", "at least 0"),
        ("SOLVER.REFERENCE_BATCH", "-8", "at least 0"),
        ("MODEL_EMA.DECAY", "1.0", "below 1, e.g. MODEL_EMA.DECAY 0.999"),
        ("LOG_PERIOD", "0", "at least 1, e.g. LOG_PERIOD 20"),
        ("TEST.EVAL_PERIOD", "-5", "at least 0"),
        ("TEST.PICTURES", "-1", "at least 0"),
        ("TEST.DETECTIONS_PER_IMAGE", "0", "at least 1"),
        ("DATALOADER.NUM_WORKERS", "-1", "at least 0"),
        ("DATALOADER.MAX_DAMAGED", "1.0", "below 1"),
        ("DATASETS.CHECK_SAMPLES", "-1", "at least 0"),
        ("MODEL.SEM_SEG_HEAD.NORM", "Batch", "not one of .*BN, SyncBN"),
        ("MODEL.SEM_SEG_HEAD.ASPP_DILATIONS", "[6, 12]", r"3 numbers.*\[6, 12, 18\]"),
        ("MODEL.SEM_SEG_HEAD.ASPP_CHANNELS", "0", "at least 1"),
        ("MODEL.SEM_SEG_HEAD.ASPP_DROPOUT", "1.0", "below 1"),
        ("MODEL.SEM_SEG_HEAD.NAME", "SemSegDeepLab", "SemSegDeepLabV3PlusHead"),
        ("MODEL.BACKBONE.NAME", "build_tim_backbone", "build_timm_backbone"),
        ("MODEL.DEVICE", "gpu", "cpu, cuda"),
        ("MODEL.PIXEL_MEAN", "[1, 2]", "MODEL.PIXEL_STD 3"),
        ("MODEL.PIXEL_STD", "[0, 1, 1]", "above 0"),
        ("MODEL.SEGNET.KERNEL", "4", "odd"),
        ("MODEL.UNET.WIDTH", "0", "at least 1"),
        ("MODEL.INFERENCE.WINDOW", "[0, 512]", "at least 1"),
        ("MODEL.INFERENCE.SCALES", "[]", "one number or more"),
        ("MODEL.ROI_HEADS.NUM_CLASSES", "0", "at least 1"),
        ("MODEL.PANOPTIC_DEEPLAB.NMS_KERNEL", "4", "odd"),
        ("MODEL.PANOPTIC_DEEPLAB.GAUSSIAN_SIGMA", "0", "above 0"),
        ("INPUT.MAPPER", "SemanticMaper", "SemanticMapper"),
        ("INPUT.RESIZE", "longest_edge", "shortest_edge, scale_jitter, fixed"),
        ("INPUT.RANDOM_FLIP", "diagonal", "horizontal, vertical, both, none"),
        ("INPUT.MASK_FORMAT", "rle", "polygon, bitmask, none"),
        ("INPUT.CROP.TYPE", "random", "absolute, relative"),
        ("INPUT.MIN_SIZE_TRAIN", "()", "one number or more"),
        ("INPUT.MIN_SIZE_TRAIN", "(-4,)", "at least 0"),
        ("INPUT.MIN_SIZE_TRAIN_SAMPLING", "uniform", "choice, range"),
        ("INPUT.VALUE_RANGE", "[3]", "0 or 2 numbers"),
        ("INPUT.VALUE_RANGE", "[5, 3]", "should rise"),
        ("INPUT.MIN_SCALE", "3.0", "should rise"),
        ("INPUT.MOSAIC", "1.5", "at most 1"),
        ("INPUT.CROP.RARE_CLASS_CHANCE", "-0.5", "at least 0 and at most 1"),
        ("INPUT.ELASTIC.POINTS", "1", "at least 2"),
        ("INPUT.DECODED_CACHE.MAX_GIB", "0", "above 0"),
    ],
)
def test_a_value_that_cannot_work_is_refused(key, value, message):
    with pytest.raises(ConfigError, match=message) as error:
        check_values(load_config(LEAF, [key, value]))
    assert str(error.value).startswith(key)


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["DATASETS.TRAIN", "()"], r"DATASETS\.TRAIN is empty.*DATASETS\.CUSTOM"),
        (["SOLVER.ACCUMULATE", "9"], r"SOLVER\.ACCUMULATE 9 .* 1 to 8"),
        (["SOLVER.ACCUMULATE", "0"], r"SOLVER\.ACCUMULATE 0"),
        (["SOLVER.AMP.DTYPE", "half"], r"SOLVER\.AMP\.DTYPE half .*float16, bfloat16"),
        (["SOLVER.AMP.DTYPE", "float16"], r"SOLVER\.AMP\.DTYPE float16 needs a GPU: use bfloat16"),
        (
            ["SOLVER.OPTIMIZER", "SGD", "SOLVER.NESTEROV", "True", "SOLVER.MOMENTUM", "0"],
            r"SOLVER\.NESTEROV True needs SOLVER\.MOMENTUM",
        ),
        (
            ["SOLVER.CLIP_GRADIENTS.ENABLED", "True", "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "all"],
            r"SOLVER\.CLIP_GRADIENTS\.CLIP_TYPE all is not one of",
        ),
        (["SOLVER.REFERENCE_WORLD_SIZE", "3"], r"IMS_PER_BATCH 8 does not divide among 3"),
        (
            ["DATASETS.TEST", "()", "SOLVER.EARLY_STOPPING.PATIENCE", "2"],
            r"SOLVER\.EARLY_STOPPING\.PATIENCE 2 needs .* set SOLVER\.EARLY_STOPPING\.PATIENCE 0",
        ),
        (
            ["DATASETS.TEST", "()", "TEST.BEST_METRIC", "sem_seg/mIoU"],
            r"TEST\.BEST_METRIC sem_seg/mIoU needs an evaluation",
        ),
        (["DATASETS.TEST", "()", "TEST.LOSS", "True"], r"set TEST\.LOSS False"),
    ],
)
def test_contradictions_are_refused_before_anything_is_built(opts, message):
    cfg = load_config(LEAF, ["MODEL.DEVICE", "cpu", *opts])
    with pytest.raises(ConfigError, match=message):
        check_training(cfg)


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["TEST.EVAL_PERIOD", "5000"], "TEST.EVAL_PERIOD 5000 is longer than the run of 1350"),
        (["DATASETS.TEST", "()"], "nothing is evaluated"),
        (["SOLVER.EARLY_STOPPING.PATIENCE", "3"], "PATIENCE 3 cannot stop a run"),
        (["SOLVER.EARLY_STOPPING.PATIENCE", "3", "TEST.EVAL_PERIOD", "400"], "4 evaluations"),
    ],
)
def test_what_changes_nothing_is_told(opts, message, caplog):
    caplog.set_level(logging.INFO, "seg_plugins")
    check_training(load_config(LEAF, ["MODEL.DEVICE", "cpu", *opts]))
    assert message in caplog.text


@pytest.mark.parametrize(
    "file",
    sorted(config_root().glob("[!_]*/*.yaml")),
    ids=lambda f: f"{f.parent.name}-{f.stem}",
)
def test_every_shipped_configuration_passes(file):
    check_values(load_config(file))


def rates(cfg):
    """The learning rate of each iteration."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=cfg.SOLVER.BASE_LR)
    schedule = build_schedule(cfg, optimizer)
    found = []
    for _ in range(cfg.SOLVER.MAX_ITER):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_warm_up_from_the_configuration_is_fitted_to_a_short_run(schedule, caplog):
    opts = ["SOLVER.LR_SCHEDULER_NAME", schedule, "SOLVER.MAX_ITER", "40", "SOLVER.BASE_LR", "0.1"]
    cfg = load_config(LEAF, opts)
    assert cfg.SOLVER.WARMUP_ITERS == 50
    complete_schedule(cfg, Origin(LEAF, opts))
    assert cfg.SOLVER.WARMUP_ITERS == 4
    assert caplog.text.count("SOLVER.WARMUP_ITERS 50 is more than a tenth") == 1
    found = rates(cfg)
    assert max(found) == pytest.approx(found[4])
    assert found[4] > 0.085
    # A second time nothing is left to do: a run may be started from its config.yaml.
    caplog.clear()
    complete_schedule(cfg, Origin(LEAF, opts))
    assert not caplog.text
    assert cfg.SOLVER.WARMUP_ITERS == 4


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("place", ["opts", "file"])
def test_a_warm_up_of_the_users_own_is_kept_or_refused(tmp_path, schedule, place):
    opts = ["SOLVER.LR_SCHEDULER_NAME", schedule, "SOLVER.STEPS", "()"]
    file = LEAF
    if place == "file":
        file = own_file(tmp_path, "SOLVER: {WARMUP_ITERS: 30}")
    else:
        opts += ["SOLVER.WARMUP_ITERS", "30"]
    trial = [*opts, "SOLVER.MAX_ITER", "1"]
    cfg = load_config(file, trial)
    complete_schedule(cfg, Origin(file, trial))
    assert cfg.SOLVER.WARMUP_ITERS == 0
    for length, fits in (("31", True), ("30", False), ("10", False)):
        given = [*opts, "SOLVER.MAX_ITER", length]
        cfg = load_config(file, given)
        if fits:
            complete_schedule(cfg, Origin(file, given))
            assert cfg.SOLVER.WARMUP_ITERS == 30
            continue
        with pytest.raises(ConfigError, match=r"SOLVER\.WARMUP_ITERS 30 .* set .* (3|1), or"):
            complete_schedule(cfg, Origin(file, given))


def test_steps_outside_the_run(tmp_path, caplog):
    leaf, length = "shapes/mask_rcnn_r18_fpn.yaml", ["SOLVER.MAX_ITER", "800"]
    cfg = load_config(leaf, length)
    assert cfg.SOLVER.STEPS == (750, 950)
    complete_schedule(cfg, Origin(leaf, length))
    assert cfg.SOLVER.STEPS == (750,)
    assert "SOLVER.STEPS (750, 950) becomes (750,)" in caplog.text
    opts = [*length, "SOLVER.STEPS", "(100, 800)"]
    with pytest.raises(ConfigError, match=r"SOLVER\.STEPS \(100, 800\).*\"\(100,\)\""):
        complete_schedule(load_config(leaf, opts), Origin(leaf, opts))
    opts = [*length, "SOLVER.STEPS", "(300, 200)"]
    with pytest.raises(ConfigError, match="rising order"):
        complete_schedule(load_config(leaf, opts), Origin(leaf, opts))
    # Steps of a schedule that has none do not matter.
    opts += ["SOLVER.LR_SCHEDULER_NAME", "WarmupPolyLR"]
    complete_schedule(load_config(leaf, opts), Origin(leaf, opts))


def test_without_setup_a_warm_up_as_long_as_the_run_is_told(caplog):
    rates(load_config(LEAF, ["SOLVER.MAX_ITER", "5"]))
    assert "SOLVER.WARMUP_ITERS 50 is as long as the run" in caplog.text


@pytest.mark.parametrize(
    ("text", "opts", "told"),
    [
        ("", ["SOLVER.IMS_PER_BATCH", "2"], "BASE_LR 0.001 comes with batches of 8"),
        ("", ["SOLVER.IMS_PER_BATCH", "64"], "SOLVER.REFERENCE_BATCH 8 (or SOLVER.BASE_LR 0.008)"),
        ("SOLVER: {IMS_PER_BATCH: 2}", [], "BASE_LR 0.00025"),
        ("SOLVER: {IMS_PER_BATCH: 2, BASE_LR: 0.1}", [], ""),
        ("SOLVER: {IMS_PER_BATCH: 2, BASE_LR: 0.1}", ["SOLVER.IMS_PER_BATCH", "8"], "BASE_LR 0.4"),
        ("", ["SOLVER.IMS_PER_BATCH", "2", "SOLVER.BASE_LR", "0.001"], ""),
        ("", ["SOLVER.IMS_PER_BATCH", "2", "SOLVER.REFERENCE_BATCH", "8"], ""),
        ("", ["SOLVER.IMS_PER_BATCH", "6"], ""),
        ("", [], ""),
    ],
)
def test_a_batch_far_from_that_of_the_rate_is_told(tmp_path, text, opts, told, caplog):
    file = own_file(tmp_path, text) if text else LEAF
    tell_rate(load_config(file, opts), Origin(file, opts))
    assert told in caplog.text
    assert bool(told) == bool(caplog.text)


@pytest.mark.parametrize(
    ("machines", "rank", "message"),
    [
        (2, 0, r"--num-machines 2 takes GPUs.*torchrun --nnodes 2 --node-rank 0"),
        (1, 1, r"--machine-rank 1 of --num-machines 1"),
        (0, 0, r"--num-machines 0"),
    ],
)
def test_machines_that_cannot_work_together_are_refused(monkeypatch, machines, rank, message):
    monkeypatch.delenv("RANK", raising=False)
    args = argparse.Namespace(
        num_gpus=0, num_machines=machines, machine_rank=rank, dist_url="auto", timeout=5
    )
    with pytest.raises(SystemExit, match=message):
        launch(lambda _: pytest.fail("a process trained for itself"), args)


def test_a_head_of_somebody_elses_may_take_other_values():
    opts = ["MODEL.SEM_SEG_HEAD.NORM", "IN", "MODEL.SEM_SEG_HEAD.ASPP_DILATIONS", "(1, 2, 3, 4)"]

    class StrangersHead:
        pass

    SEM_SEG_HEADS_REGISTRY.register(StrangersHead)
    try:
        check_values(load_config(LEAF, [*opts, "MODEL.SEM_SEG_HEAD.NAME", "StrangersHead"]))
    finally:
        SEM_SEG_HEADS_REGISTRY._obj_map.pop("StrangersHead")
    with pytest.raises(ConfigError, match=r"SEM_SEG_HEAD\.NORM IN is not one of"):
        check_values(load_config(LEAF, opts))
