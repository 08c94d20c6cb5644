"""A trainer whose loader is the user's own: any iterable of lists of samples."""

from __future__ import annotations

import copy
from pathlib import Path

from seg_plugins.config import ConfigError
from seg_plugins.data import build_mapper
from seg_plugins.engine import Trainer, setup
from seg_plugins.engine.failures import NonFiniteError
from seg_plugins.engine.train_loader import TrainLoader

import pytest
import torch
from detectron2.data import DatasetCatalog, build_detection_train_loader
from torch.utils.data import DataLoader

QUICK = ("TEST.PICTURES", "0", "DATASETS.TEST", "()")


class Twos:
    """The training set in batches of two; it ends after the fourth sample."""

    def __init__(self, cfg):
        self.mapper = build_mapper(cfg, True)
        self.records = DatasetCatalog.get("tiny_semantic_train")[:4]
        self.given = []

    def __iter__(self):
        self.given.append([])
        for i in (0, 2):
            self.given[-1].append(i)
            yield [self.mapper(copy.deepcopy(r)) for r in self.records[i : i + 2]]


def trainer_with(make, args):
    """A trainer whose ``build_train_loader`` returns ``make(cfg)``."""

    class Own(Trainer):
        @classmethod
        def build_train_loader(cls, cfg):
            return make(cfg)

    trainer = Own(setup(args))
    trainer.resume_or_load(resume=args.resume)
    return trainer


def log_of(trainer):
    return (Path(trainer.cfg.OUTPUT_DIR) / "log.txt").read_text()


def losses_of(trainer):
    return trainer.storage.history("total_loss").values()


def test_a_finite_loader_starts_anew_and_a_resumed_run_says_so(tiny_args):
    opts = (*QUICK, "SOLVER.MAX_ITER", "5", "SOLVER.CHECKPOINT_PERIOD", "3")
    trainer = trainer_with(Twos, tiny_args(*opts))
    loader = trainer.train_loader.batches
    assert loader.given == [], "nothing is loaded before it is known where to resume"

    def stop_after_the_first(original=trainer.run_step):
        original()
        if trainer.iter == 2:
            trainer.want_stop()

    trainer.run_step = stop_after_the_first
    trainer.train()
    assert loader.given == [[0, 2], [0]]
    assert log_of(trainer).count("The batches of iteration 0 and on come from a Twos") == 1
    assert log_of(trainer).count("come from") == 1
    again = trainer_with(Twos, tiny_args(*opts, resume=True))
    again.train()
    assert again.start_iter == 3
    assert again.train_loader.batches.given == [[0, 2]], "iterations 3 and 4, from its beginning"
    assert [number for _, number in losses_of(again)] == [3, 4]
    assert "The batches of iteration 3 and on come from a Twos" in log_of(again)


def test_detectron2s_own_loader_gives_batches(tiny_args):
    def make(cfg):
        return build_detection_train_loader(cfg, mapper=build_mapper(cfg, True))

    trainer = trainer_with(make, tiny_args(*QUICK))
    trainer.train()
    assert len(losses_of(trainer)) == 3


def test_a_loader_that_can_be_told_where_to_start_is_told(tiny_args):
    class Placed(Twos):
        def start_at(self, batch, drawn=None):
            self.begun = (batch, drawn)

        def dead_workers(self):
            return []

    trainer = trainer_with(Placed, tiny_args(*QUICK, "SOLVER.MAX_ITER", "2"))
    trainer.train()
    assert isinstance(trainer.train_loader, Placed)
    assert trainer.train_loader.begun == (0, 0)
    assert "come from" not in log_of(trainer)


def test_the_stream_is_no_loader_of_the_users_own(tiny_args):
    assert isinstance(Trainer(setup(tiny_args())).train_loader, TrainLoader)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda cfg: iter(list(Twos(cfg))[:1]), "gave no batch.* A generator ends for good"),
        (lambda cfg: [], "a list gave no batch"),
        (lambda cfg: [[]], r"a list gave \[\]\. A batch is a list of one sample"),
        (
            lambda cfg: DataLoader([{"image": torch.zeros(3, 4, 4)}] * 2, batch_size=2),
            r"a DataLoader gave \{'image': .*collate_fn=list",
        ),
    ],
    ids=["exhausted", "empty", "empty batch", "collated"],
)
def test_what_is_no_batch_is_refused(tiny_args, make, message):
    with pytest.raises(ConfigError, match=message):
        trainer_with(make, tiny_args(*QUICK)).train()


def test_errors_that_say_it_all_have_no_traceback_in_the_log(tiny_args):
    """Detectron2's loop logs every exception; those of the user's own code stay there."""
    trainer = Trainer(setup(tiny_args(*QUICK)))
    trainer.model.sem_seg_head.loss_weight = float("nan")
    with pytest.raises(NonFiniteError):
        trainer.train()
    assert "Starting training from iteration 0" in log_of(trainer), "it is that loop's log"
    assert "Exception during training" not in log_of(trainer)

    def fail():
        raise KeyError("mine")

    trainer = Trainer(setup(tiny_args(*QUICK, resume=True)))
    trainer.run_step = fail
    with pytest.raises(KeyError):
        trainer.train()
    assert "Exception during training" in log_of(trainer)
    assert "KeyError: 'mine'" in log_of(trainer)


def test_names_under_which_a_checkpoint_holds_states_stay(tiny_args):
    """Checkpoints of earlier versions are resumed by these names."""
    trainer = Trainer(setup(tiny_args("MODEL_EMA.ENABLED", "True")))
    assert set(trainer.checkpointer.checkpointables) == {"trainer", "ema"}
    state = trainer.state_dict()
    assert set(state) == {"iteration", "hooks", "_trainer", "samples_drawn", "random_states"}
    assert set(state["hooks"]) == {"LRScheduler", "BestCheckpoint", "RunRecord"}
    assert set(trainer.ema.state_dict()) == {"average", "updates"}
