"""Signals, to the training process alone and to all of its group, data workers included."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from seg_plugins.cli.train import main as train_command
from seg_plugins.data.sample_stream import SampleStream, StreamBatches
from seg_plugins.engine import Trainer, setup
from seg_plugins.engine.process import init_worker, passed_on
from seg_plugins.engine.train_loader import TrainLoader

import pytest
import torch
from detectron2.utils import comm
from tiny_run import TINY
from torch.utils.data import DataLoader

ROOT = Path(__file__).resolve().parents[2]


def group_exists(number: int) -> bool:
    try:
        os.killpg(number, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.01)


def test_a_signal_to_the_whole_group_ends_with_a_checkpoint(tmp_path, custom):
    """What `timeout`, `scancel` and service managers send."""
    out = tmp_path / "run"
    opts = (*TINY, "DATASETS.CUSTOM", str(custom), "OUTPUT_DIR", str(out), "SOLVER.MAX_ITER",
            "100000", "DATALOADER.NUM_WORKERS", "2", "DATASETS.TEST", "()")  # fmt: skip
    command = [sys.executable, str(ROOT / "tools/train_net.py"), "--num-gpus", "0",
               "--config-file", "quickstart/deeplabv3plus_r18_shapes.yaml", *opts]  # fmt: skip
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"},
                               stdout=subprocess.DEVNULL, start_new_session=True)  # fmt: skip
    metrics = out / "metrics.json"
    try:
        wait_until(lambda: metrics.is_file() and metrics.read_text().count("\n") >= 3)
        before = metrics.read_text().count("\n")
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(60) == 0
        wait_until(lambda: not group_exists(process.pid), 10)
    finally:
        if group_exists(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
    lines = map(json.loads, metrics.read_text().splitlines())
    done = max(line["iteration"] for line in lines if "total_loss" in line)
    assert (out / "last_checkpoint").read_text() == f"model_{done:07d}.pth"
    # Lines are written as iterations end: that in progress, and what came before the signal did.
    assert done <= before + 3
    assert "SIGTERM was received" in (out / "log.txt").read_text()


def numbered(record, rng=None):
    return dict(record)


@pytest.fixture
def loader():
    records = [{"file_name": f"{i}.png"} for i in range(10)]
    stream = SampleStream(records=records, mapper=numbered, seed=0)
    result = TrainLoader(stream, StreamBatches(batch_size=2), 2)
    batches = iter(result)
    next(batches)
    yield result, batches
    batches.close()


def test_workers_leave_signals_of_others_alone_and_obey_their_parent(loader):
    made, batches = loader
    workers = made._iterator._workers
    # A process of its own: what the parent itself sends means the worker.
    numbers = " ".join(str(worker.pid) for worker in workers)
    for name in ("TERM", "USR1", "USR2", "INT"):
        subprocess.run(["sh", "-c", f"kill -{name} {numbers}"], check=True)
    for _ in range(6):
        assert len(next(batches)) == 2
    assert all(worker.is_alive() for worker in workers)
    workers[0].terminate()  # as PyTorch does with one that does not end
    workers[0].join(5)
    assert workers[0].exitcode == 0


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_a_worker_obeys_its_parent_whoever_has_started_it(method):
    batches = iter(DataLoader([0, 1], num_workers=1, worker_init_fn=init_worker,
                              multiprocessing_context=method))  # fmt: skip
    next(batches)
    worker = batches._workers[0]
    worker.terminate()
    worker.join(5)
    # A fork server's worker imports libraries before it can block signals; a thread that one of
    # them starts may take the signal and end the worker on the spot.
    ends = {"fork": {0}, "forkserver": {0, -signal.SIGTERM}}
    assert worker.exitcode in ends[method]


@pytest.mark.slow
def test_no_worker_outlives_a_parent_that_is_killed(tmp_path):
    """PyTorch's workers look after their parent every five seconds."""
    script = f"""
import os, signal, sys
sys.path[:0] = [{str(ROOT)!r}, {str(Path(__file__).parent)!r}]
from test_stopping import *
stream = SampleStream(records=[{{"file_name": "a"}}] * 4, mapper=numbered, seed=0)
loader = TrainLoader(stream, StreamBatches(batch_size=2), 2)
next(iter(loader))
os.kill(os.getpid(), signal.SIGKILL)
"""
    process = subprocess.Popen([sys.executable, "-c", script], start_new_session=True)
    assert process.wait(60) == -signal.SIGKILL
    wait_until(lambda: not group_exists(process.pid), 12)


class Detectron2Like(Trainer):
    """Overrides ``test`` as it may be with Detectron2's DefaultTrainer."""

    @classmethod
    def test(cls, cfg, model, evaluators=None):
        return super().test(cfg, model, evaluators)


def test_an_evaluation_is_broken_off(tiny_args, tmp_path, monkeypatch):
    """The training stops one iteration later, and goes on as if there had been no evaluation."""
    opts = ("SOLVER.MAX_ITER", "4", "TEST.PICTURES", "0", "MODEL_EMA.ENABLED", "True",
            "MODEL.SEM_SEG_HEAD.ASPP_DROPOUT", "0.5")  # fmt: skip
    whole = Trainer(setup(tiny_args(*opts, "OUTPUT_DIR", str(tmp_path / "whole"))))
    whole.train()
    args = tiny_args(*opts, "TEST.EVAL_PERIOD", "2", "TEST.LOSS", "True")
    trainer = Detectron2Like(setup(args))
    original, checked = trainer._check_stop, []

    def check():
        checked.append(trainer.iter)
        if len(checked) == 6:  # four images for the loss, then the evaluators
            os.kill(os.getpid(), signal.SIGTERM)
        original()

    monkeypatch.setattr(trainer, "_check_stop", check)
    trainer.train()
    assert checked == [1] * 6
    assert trainer.model.training
    assert (tmp_path / "run" / "last_checkpoint").read_text() == "model_0000002.pth"
    args.resume = True
    again = Trainer(setup(args))
    again.resume_or_load(resume=True)
    assert again.start_iter == 3
    again.train()
    for (name, a), b in zip(whole.model.state_dict().items(), again.model.state_dict().values(),
                            strict=True):  # fmt: skip
        assert torch.equal(a, b), name


@pytest.fixture
def unhandled():
    """Signals that the training has left to the handler that was there before it."""
    received = []
    before = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    yield received
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("moment", ["last save", "last evaluation", "another process"])
def test_a_signal_after_the_last_iteration(tiny_args, tmp_path, monkeypatch, unhandled, moment):
    """The training is complete; nothing is made of older results, and all can be made up for."""
    args = tiny_args("TEST.EVAL_PERIOD", "2", "TEST.REPORT", "True", "TEST.REPORT_IMAGES", "0")
    trainer = Detectron2Like(setup(args))
    save, check = trainer.checkpointer.save, trainer._check_stop

    def save_and_signal(name, **options):
        save(name, **options)
        if name != "model_final":
            return
        if moment == "last save":
            os.kill(os.getpid(), signal.SIGTERM)
        elif moment == "another process":
            monkeypatch.setattr(comm, "all_gather", lambda own: [own, True])

    def signal_and_check():
        if trainer.iter == trainer.max_iter:
            assert moment == "last evaluation", "it goes on"
            os.kill(os.getpid(), signal.SIGTERM)
        check()

    monkeypatch.setattr(trainer.checkpointer, "save", save_and_signal)
    monkeypatch.setattr(trainer, "_check_stop", signal_and_check)
    assert trainer.train() is None
    assert not unhandled
    os.kill(os.getpid(), signal.SIGTERM)
    assert unhandled == [signal.SIGTERM], "the former handler is back"
    run = tmp_path / "run"
    assert (run / "last_checkpoint").read_text() == "model_final.pth"
    assert json.loads((run / "run.json").read_text())["iterations"] == 3
    made = [run / "report.html", run / "inference" / "pictures.png"]
    assert not any(path.exists() for path in made)
    assert (run / "log.txt").read_text().count("--eval-only --resume makes them") == 1
    if moment == "last save":
        args.eval_only = args.resume = True
        assert train_command(args)["sem_seg"]["mIoU"] >= 0
        assert all(path.is_file() for path in made)


def end_at_signal(ready):
    signal.signal(signal.SIGUSR1, lambda *_: os._exit(7))
    ready.set()
    time.sleep(30)


def test_the_launcher_passes_signals_on():
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    child = context.Process(target=end_at_signal, args=(ready,))
    before = signal.getsignal(signal.SIGUSR1)
    with passed_on():
        child.start()
        assert ready.wait(10)
        os.kill(os.getpid(), signal.SIGUSR1)
        child.join(10)
    assert child.exitcode == 7
    assert signal.getsignal(signal.SIGUSR1) == before


def test_a_launcher_without_processes_ends_by_a_signal():
    def wait_for_none():
        with passed_on():
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(SystemExit) as end:
        wait_for_none()
    assert end.value.code == 128 + signal.SIGTERM
