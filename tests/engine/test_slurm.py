"""tools/submit_slurm.py in a job that SLURM wants to end, without SLURM and submitit."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_run import TINY

ROOT = Path(__file__).resolve().parents[2]
# What submitit tells a task from SLURM's variables; it may not be installed.
SUBMITIT = """
import os
class Environment:
    rank = int(os.environ["SLURM_PROCID"])
    def export(self, set_cuda_visible_devices):
        assert not set_cuda_visible_devices, "train_net.py would look for another device"
        os.environ.update(
            RANK=os.environ["SLURM_PROCID"], WORLD_SIZE=os.environ["SLURM_NTASKS"],
            LOCAL_RANK=os.environ["SLURM_LOCALID"], LOCAL_WORLD_SIZE=os.environ["SLURM_NTASKS"],
            MASTER_ADDR="127.0.0.1", MASTER_PORT=os.environ["TEST_PORT"],
        )
        return self
class helpers:
    TorchDistributedEnvironment = Environment
"""
# In the place of the training: says that it is ready, and tells which signal it got.
QUICK = """
import os, signal, sys, time
def end(number, _):
    open("got", "w").write(f"{number} {sys.argv[1:]}")
    sys.exit(int(os.environ["TEST_STATUS"]))
for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, end)
open("ready", "w").close()
time.sleep(60)
"""


@pytest.fixture
def job(tmp_path):
    """Starts one task of a job in `tmp_path`; what it tells SLURM stands in the file `told`."""
    (tmp_path / "submitit.py").write_text(SUBMITIT)
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/told\n')
    scontrol.chmod(0o755)
    started = []

    def start(*arguments, training=ROOT, rank=0, status=0):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        script = (
            "import sys; from pathlib import Path; import submit_slurm\n"
            f"submit_slurm.ROOT = Path({str(training)!r})\n"
            f"submit_slurm.Training({list(arguments)!r})()"
        )
        environment = {
            **os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT / "tools"), str(ROOT)]),
            "SLURM_JOB_ID": "42", "SLURM_PROCID": str(rank), "SLURM_NTASKS": "1",
            "SLURM_LOCALID": "0", "TEST_PORT": str(port), "TEST_STATUS": str(status),
            "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        process = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, env=environment,
                                   stdout=subprocess.DEVNULL, start_new_session=True)  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def told(folder):
    file = folder / "told"
    return file.read_text().splitlines() if file.exists() else []


def wait_for(condition, process):
    end = time.monotonic() + 60
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("number", "rank", "status", "requeued"),
    [
        (signal.SIGUSR1, 0, 0, True),
        (signal.SIGUSR2, 0, 0, True),
        (signal.SIGUSR2, 1, 0, False),  # the first task asks for all
        (signal.SIGTERM, 0, 0, False),  # cancelled, or put back by SLURM itself
        (signal.SIGUSR1, 0, 3, False),  # it has failed, and would fail again
    ],
)
def test_another_turn_is_asked_for_when_the_time_is_up(
    tmp_path, job, number, rank, status, requeued
):
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "train_net.py").write_text(QUICK)
    process = job("OUTPUT_DIR", "x", training=tmp_path, rank=rank, status=status)
    wait_for((tmp_path / "ready").exists, process)
    process.send_signal(number)
    assert process.wait(30) == status
    got = (tmp_path / "got").read_text()
    assert got == f"{int(number)} ['--resume', 'OUTPUT_DIR', 'x']"
    assert told(tmp_path) == (["requeue 42"] if requeued else [])


@pytest.mark.slow
def test_a_job_saves_goes_back_to_the_queue_and_resumes(tmp_path, custom, job):
    out = tmp_path / "run"
    arguments = ("--num-gpus", "0", "--config-file", "quickstart/deeplabv3plus_r18_shapes.yaml",
                 *TINY, "DATASETS.CUSTOM", str(custom), "DATASETS.TEST", "()",
                 "OUTPUT_DIR", str(out), "SOLVER.MAX_ITER", "200")  # fmt: skip
    first = job(*arguments)
    metrics = out / "metrics.json"
    wait_for(lambda: metrics.is_file() and metrics.read_text().count("\n") >= 3, first)
    first.send_signal(signal.SIGUSR1)
    assert first.wait(60) == 0
    assert told(tmp_path) == ["requeue 42"]
    saved = (out / "last_checkpoint").read_text()
    assert saved != "model_final.pth"
    assert job(*arguments).wait(120) == 0
    assert told(tmp_path) == ["requeue 42"]
    reached = int(saved.removeprefix("model_").removesuffix(".pth")) + 1
    assert f"Resuming at iteration {reached} of 200" in (out / "log.txt").read_text()
    assert (out / "last_checkpoint").read_text() == "model_final.pth"
