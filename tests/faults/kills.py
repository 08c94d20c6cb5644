"""Processes that are ended from outside: training, saving, a data worker, a rank, a job."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import time
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from seg_plugins.engine import Checkpointer
from seg_plugins.io import files
from seg_plugins.io.weights.safe_load import load_torch

import torch
import warm
from row import Row
from torch import nn
from warm import ITERATIONS, PERIOD, Progress

FINAL = "model_final.pth"


def operations(progress: Progress, fatal: int | None = None) -> Callable[[], None]:
    """Count writes, fsyncs and renames of saves, and die by SIGKILL before number `fatal`."""

    def wrap(function: Any) -> Any:
        def counted(*args: Any, **kwargs: Any) -> Any:
            if progress["saving"]:
                if progress["operations"] == fatal:
                    os.kill(os.getpid(), signal.SIGKILL)
                progress["operations"] += 1
            return function(*args, **kwargs)

        return counted

    def prepare() -> None:
        files._Writer.write = wrap(files._Writer.write)
        for name in ("fsync", "replace"):
            setattr(os, name, wrap(getattr(os, name)))

    return prepare


def reference(folder: Path, *opts: str) -> tuple[str, int]:
    """Hash of the uninterrupted run, and the operations of its saves."""
    progress = Progress()
    log = folder / "reference.log"
    status = warm.run(warm.arguments(folder / "reference", *opts), log, progress=progress,
                      prepare=operations(progress))  # fmt: skip
    if status != 0:
        raise RuntimeError(f"the uninterrupted run failed: {log.read_text()[-2000:]}")
    return warm.state_hash(folder / "reference" / FINAL), progress["operations"]


def sigkill(runs: int, rng: random.Random, folder: Path) -> Row:
    """Killed at a random moment (every other time within a save), then resumed."""
    expected, count = reference(folder)
    equal = close = in_save = 0
    for i in range(runs):
        out, log, progress = folder / f"run_{i}", folder / f"run_{i}.log", Progress()
        workers = ("DATALOADER.NUM_WORKERS", str(rng.choice([0, 0, 1, 2])))
        fatal = rng.randrange(count) if i % 2 == 0 else None
        prepare = operations(progress, fatal)
        args = warm.arguments(out, *workers)
        pid = warm.fork(lambda a=args, p=progress, f=prepare: warm.train(a, p, f), log)
        if fatal is None:
            warm.wait_for(progress, rng.randrange(1, ITERATIONS - 1), pid)
            time.sleep(rng.random() * 0.02)
            os.kill(pid, signal.SIGKILL)
        status = warm.wait(pid, warm.LONG)
        in_save += progress["saving"]
        done = progress["iteration"]
        again = folder / f"run_{i}_again.log"
        workers = ("DATALOADER.NUM_WORKERS", str(rng.choice([0, 0, 1, 2])))
        ended = warm.run(warm.arguments(out, *workers, resume=True), again)
        close += status == -signal.SIGKILL and done - warm.resumed_at(out) <= PERIOD
        equal += ended == 0 and warm.state_hash(out / FINAL) == expected
    return Row(
        "SIGKILL, CPU", runs,
        f"{equal} resumed to the uninterrupted run's hash, {close} lost <= 1 interval, "
        f"{in_save} killed within a save",
        equal == close == runs and in_save >= 0.3 * runs,
    )  # fmt: skip


def overwriting(runs: int, rng: random.Random, folder: Path) -> Row:
    """Killed while ``model_best`` and ``model_final`` are written over and over."""
    readable = 0
    for i in range(runs):
        out, progress = folder / f"run_{i}", Progress()
        out.mkdir()
        pid = warm.fork(lambda o=out, p=progress: _save_forever(o, p), folder / "saves.log")
        warm.wait_for(progress, 1, pid)
        time.sleep(rng.random() * 0.1)
        os.kill(pid, signal.SIGKILL)
        warm.wait(pid, warm.LONG)
        saved = [out / "model_best.pth", out / FINAL]
        whole = all(files.damage(file, ours=True) is None for file in saved)
        same = all(_all_equal(load_torch(file)["model"]["weight"]) for file in saved)
        readable += whole and same and (out / "last_checkpoint").read_text() == FINAL
    return Row("SIGKILL while overwriting best/final", runs, f"{runs - readable} unreadable",
               readable == runs)  # fmt: skip


def _save_forever(out: Path, progress: Progress) -> None:
    model = nn.Linear(256, 256)
    checkpointer = Checkpointer(model, str(out))
    for round_ in range(10_000):
        nn.init.constant_(model.weight, round_)
        checkpointer.save("model_best", tag_last=False, iteration=round_)
        checkpointer.save("model_final", iteration=round_)
        progress["iteration"] = round_ + 1


def _all_equal(weight: torch.Tensor) -> bool:
    return bool((weight == weight[0, 0]).all())


def sigterm(runs: int, rng: random.Random, folder: Path) -> Row:
    """SIGTERM or SIGUSR1 at a random moment: a checkpoint, status 0, exact resume.

    Every other time to the process group, data workers included, as `timeout` and `scancel` do.
    """
    expected, _ = reference(folder)
    good = within = 0
    for i in range(runs):
        out, log, progress = folder / f"run_{i}", folder / f"run_{i}.log", Progress()
        send, workers = (os.kill, 0) if i % 2 else (os.killpg, 2)
        args = warm.arguments(out, "DATALOADER.NUM_WORKERS", str(workers))
        pid = warm.fork(lambda a=args, p=progress: warm.train(a, p), log)
        warm.wait_for(progress, rng.randrange(1, ITERATIONS - 2), pid)
        time.sleep(rng.random() * 0.02)
        at = progress["iteration"]
        send(pid, rng.choice([signal.SIGTERM, signal.SIGUSR1]))
        status = warm.wait(pid, warm.LONG)
        within += status == 0 and progress["iteration"] <= at + 2
        again = warm.run(warm.arguments(out, resume=True), folder / f"run_{i}_again.log")
        # One that had just ended has nothing left to do.
        good += again == 0 and warm.state_hash(out / FINAL) == expected
    return Row("SIGTERM, SIGUSR1", runs,
               f"{within} ended with status 0 within one iteration, {good} resumed exactly",
               good == within == runs)  # fmt: skip


def worker(runs: int, rng: random.Random, folder: Path) -> Row:
    """A data worker is killed: the training says which sample, ends, and can be resumed."""
    expected, _ = reference(folder)
    exact = named = 0
    slowest = 0.0
    for i in range(runs):
        out, log, progress = folder / f"run_{i}", folder / f"run_{i}.log", Progress()
        args = warm.arguments(out, "DATALOADER.NUM_WORKERS", "2")
        pid = warm.fork(lambda a=args, p=progress: warm.train(a, p), log)
        warm.wait_for(progress, rng.randrange(1, ITERATIONS // 2), pid)
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if children:  # else it has ended, and the log does not name a sample
            os.kill(int(rng.choice(children)), signal.SIGKILL)
        begin = time.monotonic()
        status = warm.wait(pid, warm.LONG)
        slowest = max(slowest, time.monotonic() - begin)
        text = log.read_text(errors="replace")
        named += status == 1 and "error: Data worker" in text and "image_" in text
        again = warm.run(warm.arguments(out, resume=True), folder / f"run_{i}_again.log")
        exact += again == 0 and warm.state_hash(out / FINAL) == expected
    return Row("killed data worker", runs,
               f"{named} named the sample, slowest exit {slowest:.1f} s, {exact} resumed exactly",
               named == exact == runs and slowest <= 10)  # fmt: skip


def rank(backend: str, runs: int, rng: random.Random, folder: Path) -> Row:
    """One of two processes is killed; the elastic agent of torchrun starts them again."""
    _prepare_server()
    begin = time.monotonic()
    pid = _elastic(backend, folder / "reference")
    if warm.wait(pid, warm.LONG) != 0:
        log = (folder / "reference.log").read_text(errors="replace")
        raise RuntimeError(f"the uninterrupted run failed: {log[-3000:]}")
    plain = time.monotonic() - begin
    expected = warm.state_hash(folder / "reference" / FINAL)
    ended = close = equal = 0
    slowest = 0.0
    for i in range(runs):
        out, progress = folder / f"run_{i}", Progress(folder / f"run_{i}.progress")
        pid = _elastic(backend, out)
        warm.wait_for(progress, rng.randrange(1, ITERATIONS - 2), pid)
        at, victim = progress["iteration"], progress[f"pid_{rng.randrange(2)}"]
        if victim:  # 0 would be this process's own group
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
        begin = time.monotonic()
        status = warm.wait(pid, 60 + plain)
        slowest = max(slowest, time.monotonic() - begin)
        ended += status == 0
        close += at - warm.resumed_at(out) <= PERIOD
        equal += status == 0 and warm.state_hash(out / FINAL) == expected
    return Row(f"killed DDP rank ({backend})", runs,
               f"{runs - ended} did not end within 60 s (slowest {slowest:.1f} s), {close} lost "
               f"<= 1 interval, {equal} ended in the uninterrupted run's hash",
               ended == close == equal == runs)  # fmt: skip


def _prepare_server() -> None:
    """Start the process that ranks are forked from: clean, with everything imported.

    Ranks that are forked from the agent itself would inherit the sockets of its store, and could
    not meet again after a restart.
    """
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), str(warm.ROOT)])
    forkserver.set_forkserver_preload(["kills"])
    forkserver.ensure_running()


def _elastic(backend: str, out: Path) -> int:
    """The process id of what torchrun does with two processes."""
    return warm.fork(lambda: _agent(backend, out), out.with_suffix(".log"))


def _agent(backend: str, out: Path) -> None:
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # The server is the parent's child, so this process cannot look after it.
    forkserver._forkserver.ensure_running = lambda: None
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=2, run_id=out.name, rdzv_backend=backend,
        rdzv_endpoint=f"localhost:{port}", rdzv_configs={"rank": 0, "timeout": 60},
        max_restarts=3, monitor_interval=0.1, start_method="forkserver",
    )  # fmt: skip
    elastic_launch(config, rank_main)(str(out), str(warm.dataset_folder()))


def rank_main(out: str, data: str) -> None:
    """One rank, forked from the server."""
    warm.write_to(Path(out).with_suffix(".log"))
    warm.register_dataset(Path(data))
    torch.set_num_threads(1)
    number, progress = int(os.environ["RANK"]), Progress(Path(out).with_suffix(".progress"))
    progress[f"pid_{number}"] = os.getpid()
    args = warm.arguments(Path(out), "SOLVER.IMS_PER_BATCH", "4")
    warm.train(args, progress if number == 0 else None)
