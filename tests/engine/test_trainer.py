"""The trainer, from set-up to the files it leaves."""

from __future__ import annotations

import json

from seg_plugins.engine import Trainer, WeightsError, setup, solver
from seg_plugins.engine.failures import NonFiniteError

import cv2
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import DefaultPredictor, DefaultTrainer


def train(args):
    trainer = Trainer(setup(args))
    trainer.resume_or_load(resume=args.resume)
    trainer.train()
    return trainer


def logged(folder, key):
    lines = map(json.loads, (folder / "metrics.json").read_text().splitlines())
    return {line["iteration"]: line[key] for line in lines if key in line}


def test_a_run_leaves_what_detectron2_users_expect(tiny_args, tmp_path):
    trainer = train(tiny_args())
    run = tmp_path / "run"
    names = {file.name for file in run.iterdir()}
    assert {"config.yaml", "log.txt", "metrics.json", "model_final.pth", "inference"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert len(logged(run, "total_loss")) == 3
    assert "sem_seg" in trainer._last_eval_results
    # Three pictures of 320 pixels and their gaps; one row for each of the 4 test images.
    picture = cv2.imread(str(run / "inference" / "pictures.png"))
    assert picture.shape[1] == 3 * 324
    assert (run / "last_checkpoint").read_text() == "model_final.pth"
    assert (run / "model_best.pth").is_file()
    record = json.loads((run / "run.json").read_text())
    assert record["iterations"] == 3
    assert record["parameters"] == sum(p.numel() for p in trainer.model.parameters())


def test_the_loss_falls(tiny_args, tmp_path):
    train(tiny_args("SOLVER.MAX_ITER", "40", "SOLVER.BASE_LR", "0.01", "TEST.PICTURES", "0"))
    losses = logged(tmp_path / "run", "total_loss")
    assert losses[39] < 0.5 * losses[0]


def test_a_resumed_run_equals_an_uninterrupted_one(tiny_args, tmp_path):
    """Same losses and weights: the data goes on where it stopped (dropout is off here)."""
    opts = ["MODEL.SEM_SEG_HEAD.ASPP_DROPOUT", "0.0", "SOLVER.CHECKPOINT_PERIOD", "3",
            "TEST.PICTURES", "0", "SOLVER.MAX_ITER", "6"]  # fmt: skip
    whole = train(tiny_args(*opts, "OUTPUT_DIR", str(tmp_path / "whole")))
    # Interrupted after the checkpoint of iteration 2, within iteration 4.
    args = tiny_args(*opts)
    first = Trainer(setup(args))
    first.resume_or_load(resume=False)
    first.after_step = stop_at(first, 4)
    with pytest.raises(KeyboardInterrupt):
        first.train()
    args.resume = True
    second = train(args)
    assert second.start_iter == 3
    for (name, a), b in zip(
        whole.model.state_dict().items(), second.model.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name


def stop_at(trainer, iteration):
    original = trainer.after_step

    def after_step():
        original()
        if trainer.iter == iteration:
            raise KeyboardInterrupt

    return after_step


def test_several_test_datasets_do_not_overwrite_each_others_results(tiny_args, tmp_path):
    both = "('tiny_semantic_train', 'tiny_semantic_test')"
    Trainer(setup(tiny_args("SOLVER.MAX_ITER", "1", "DATASETS.TEST", both))).train()
    found = {p.parent.name for p in tmp_path.rglob("sem_seg_results.json")}
    assert found == {"tiny_semantic_train", "tiny_semantic_test"}


def test_a_finished_run_says_so_on_resume(tiny_args, caplog):
    train(tiny_args("TEST.PICTURES", "0"))
    assert train(tiny_args(resume=True)).start_iter == 3
    assert "raise it" in caplog.text


def test_a_loss_that_is_not_finite_stops_before_the_weights_change(tiny_args):
    trainer = Trainer(setup(tiny_args()))
    before = {k: v.clone() for k, v in trainer.model.state_dict().items() if "running" not in k
              and "num_batches" not in k}  # fmt: skip
    head = trainer.model.sem_seg_head
    head.loss_weight = float("nan")
    with pytest.raises(NonFiniteError, match=r"iteration 0: .*tiny_semantic_train_\d\.png"):
        trainer.train()
    after = trainer.model.state_dict()
    assert all(torch.equal(v, after[k]) for k, v in before.items())


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("/nowhere/model.pth", r"no file /nowhere/model\.pth"),
        ("http://127.0.0.1:9/model.pth", r"127\.0\.0\.1:9/model\.pth could not be fetched.*cache"),
    ],
)
def test_missing_weights_name_file_and_fix(tiny_args, weights, message):
    trainer = Trainer(setup(tiny_args("MODEL.WEIGHTS", weights)))
    with pytest.raises(WeightsError, match=message):
        trainer.resume_or_load(resume=False)


def test_bfloat16_autocast_trains_on_the_cpu(tiny_args, tmp_path, monkeypatch):
    monkeypatch.setattr(solver, "has_fast_bfloat16", lambda: True)
    opts = ("SOLVER.AMP.ENABLED", "True", "TEST.PICTURES", "0", "MODEL.CHANNELS_LAST", "True")
    full = tiny_args("TEST.PICTURES", "0", "OUTPUT_DIR", str(tmp_path / "full"))
    train(tiny_args(*opts))
    train(full)
    half, whole = (logged(tmp_path / d, "total_loss")[0] for d in ("run", "full"))
    assert half == pytest.approx(whole, rel=0.02)
    assert half != whole, "autocast was not on"


def test_a_processor_without_bfloat16_computes_in_float32(tiny_args, monkeypatch, caplog):
    cfg = setup(tiny_args("SOLVER.AMP.ENABLED", "True"))
    for fast, expected in ((True, torch.bfloat16), (False, None)):
        monkeypatch.setattr(solver, "has_fast_bfloat16", lambda fast=fast: fast)
        caplog.clear()
        assert solver.amp_dtype(cfg) is expected
        assert ("computing in float32" in caplog.text) is not fast


def test_models_and_datasets_run_under_detectron2s_own_trainer_and_predictor(tiny_args, tmp_path):
    """Nothing of our engine: DefaultTrainer with its own mapper, then DefaultPredictor."""
    cfg = setup(tiny_args()).clone()
    cfg.defrost()
    cfg.DATASETS.TEST = ()  # DefaultTrainer has no evaluators
    cfg.SOLVER.LR_SCHEDULER_NAME = "WarmupMultiStepLR"  # nor our schedules
    cfg.SOLVER.STEPS = ()
    cfg.INPUT.RANDOM_FLIP = "horizontal"
    DefaultTrainer(cfg).train()
    cfg.MODEL.WEIGHTS = str(tmp_path / "run" / "model_final.pth")
    cfg.DATASETS.TEST = ("tiny_semantic_test",)
    record = DatasetCatalog.get("tiny_semantic_test")[0]
    scores = DefaultPredictor(cfg)(cv2.imread(record["file_name"]))["sem_seg"]
    assert scores.shape == (len(MetadataCatalog.get("tiny_semantic_test").stuff_classes), 40, 48)


def test_models_run_in_a_plain_training_loop(tiny_args):
    from seg_plugins.data import build_mapper

    from detectron2.data import build_detection_train_loader
    from detectron2.modeling import build_model

    cfg = setup(tiny_args())
    model = build_model(cfg)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loader = build_detection_train_loader(cfg, mapper=build_mapper(cfg, True))
    for _, batch in zip(range(2), loader, strict=False):
        losses = model(batch)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    assert losses.keys() == {"loss_sem_seg"}
