"""A few runs of each fault with a fixed seed; `make faults` makes all of them."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from seg_plugins.engine import writers

import files
import kills
import nonfinite_runs
import pytest
import soak
import torch
import warm
from torch._subclasses.fake_tensor import FakeTensorMode

RUNS = [
    (kills.sigkill, 2), (kills.overwriting, 6), (kills.sigterm, 1), (kills.worker, 1),
    (files.disk_full, 1), (files.damaged, 40), (files.malicious, 0),
]  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread(tmp_path_factory, dataset_root):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = dataset_root / "faults"
    folder.mkdir(exist_ok=True)
    warm.register_dataset(folder)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("campaign", "runs"), RUNS, ids=lambda v: getattr(v, "__name__", ""))
def test_fault(tmp_path, campaign, runs):
    row = campaign(runs, random.Random(0), tmp_path)
    assert row.passed, row.line()


@pytest.fixture
def command():
    """The module that `python -m tests.faults` runs."""
    path = warm.ROOT / "tests" / "faults" / "__main__.py"
    spec = importlib.util.spec_from_file_location("faults_command", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_table_with_gaps_is_not_as_required(command, tmp_path, monkeypatch, capsys):
    results, measured = tmp_path / "results.jsonl", []
    monkeypatch.setattr(command, "run", lambda names, _: measured.append(names) or 0)

    def main(*arguments):
        monkeypatch.setattr(sys, "argv", ["faults", "--results", str(results), *arguments])
        return command.main()

    assert main("--table") == 1, "nothing is measured"
    rows = [{"name": name, "scale": 1.0, "fault": name, "runs": 2, "result": "", "passed": passed,
             "seconds": 3} for name, passed in (("sigkill", True), ("worker", False))]  # fmt: skip
    results.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main("--table", "sigkill") == 0
    assert main("--table", "sigkill", "--scale", "0.1") == 1
    assert main("--table", "sigkill", "nan") == main("--table", "worker") == 1
    assert capsys.readouterr().out.count("| worker | 2 |  | NO | 3 |") == 1
    assert main("--missing", "sigkill", "worker", "nan") == 0
    assert measured == [["nan", "worker"]]


def test_an_error_without_a_text_ends_its_row(command, tmp_path, monkeypatch):
    def fail(*_):
        raise TimeoutError

    monkeypatch.setattr(kills, "worker", fail)
    row = command.measure("worker", 1.0, 0, tmp_path)
    assert (row.result, row.passed) == ("broken off: TimeoutError", False)


def test_a_forked_child_can_train_after_a_fake_tensor(tmp_path):
    """As the operators' tests, which `opcheck` runs with fake tensors, leave the process."""

    def backward():
        torch.ones(1, requires_grad=True).sum().backward()

    with FakeTensorMode():
        torch.ones(1)
    backward()
    log = tmp_path / "log"
    assert warm.wait(warm.fork(backward, log), 60.0) == 0, log.read_text()


def test_nan_in_one_system(tmp_path):
    row = nonfinite_runs.not_finite(1, random.Random(0), tmp_path)
    assert row.passed, row.line()


def test_memory_files_and_logs_do_not_grow(tmp_path, monkeypatch):
    """In short, with a history of metrics that is soon full: 1.3 MB per 1,000 iterations, which
    an endless history takes, would show."""
    monkeypatch.setattr(writers, "HISTORY", 50)
    readings = soak.soak(400, tmp_path / "run", every=20)
    found = soak.growth(readings, warm=200)
    assert found.trimmed_mb <= 1.0, readings
    assert found.files <= 0
    assert found.log_mb <= soak.MAX_LOG_MB


@pytest.mark.parametrize("step", [1, 3000])
def test_growth_shows_whether_it_is_steady_or_in_steps(step):
    """0.3 MB per 1,000 iterations on memory that goes up and down by 0.2 MB."""
    rng = random.Random(0)
    readings = []
    for i in range(100, 10_001, 100):
        memory = 800 + 0.0003 * (i // step * step) + 0.2 * rng.random()
        readings.append(soak.Reading(i, memory, memory, 8, 0.0))
    found = soak.growth(readings)
    assert found.trimmed_mb == pytest.approx(0.3, abs=0.07)
    assert found.too_much()
    flat = [dataclasses.replace(r, memory_mb=800.0, trimmed_mb=800.0) for r in readings]
    assert not soak.growth(flat).too_much()
    more = dataclasses.replace(flat[-1], files=9)
    assert soak.growth([*flat[:-1], more]).too_much()


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["static", "c10d"])
def test_a_killed_rank(backend, tmp_path):
    """In a process of its own: it starts a server that forks ranks."""
    result = subprocess.run(
        [sys.executable, "-m", "tests.faults", f"rank-{backend}", "--scale", "0.04",
         "--results", str(tmp_path / "results.jsonl")],
        capture_output=True, text=True, timeout=600, check=False, cwd=warm.ROOT,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout


@pytest.mark.slow
def test_a_killed_command_goes_on_as_if_nothing_had_been(tmp_path, dataset_root):
    """tools/train_net.py with two data workers, crop, flip, colour and dropout."""
    description = tmp_path / "data.yaml"
    description.write_text(json.dumps({
        "name": "killed", "task": "semantic", "classes": ["dark", "middle", "bright"],
        "images": "images", "masks": "masks", "image_suffix": ".png", "split": {"val_fraction": 0},
    }))  # fmt: skip
    for kind in ("image", "label"):
        folder = tmp_path / {"image": "images", "label": "masks"}[kind]
        folder.mkdir()
        for file in (dataset_root / "faults").glob(f"{kind}_*.png"):
            os.link(file, folder / file.name.removeprefix(f"{kind}_"))
    opts = ("DATASETS.CUSTOM", str(description), "SOLVER.MAX_ITER", "60", "DATALOADER.NUM_WORKERS",
            "2", "LOG_PERIOD", "1", "SOLVER.CHECKPOINT_PERIOD", "20")  # fmt: skip

    def start(out: Path, *flags: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(warm.ROOT / "tools/train_net.py"), *flags, "--num-gpus", "0",
                   "--config-file", "quickstart/unet_shapes.yaml"]  # fmt: skip
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen([*command, *warm.OPTIONS, *opts, "OUTPUT_DIR", str(out)],
                                env=environment, stdout=subprocess.DEVNULL)  # fmt: skip

    assert start(tmp_path / "whole").wait(300) == 0
    out = tmp_path / "killed"
    process = start(out)
    metrics = out / "metrics.json"
    while not metrics.is_file() or metrics.read_text().count("\n") < 30:
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = json.loads(metrics.read_text().splitlines()[-1])["iteration"] + 1
    saved = (out / "last_checkpoint").read_text()
    assert saved == "model_0000019.pth"
    assert 20 < done < 40, "killed between checkpoints, with iterations pending"
    assert start(out, "--resume").wait(300) == 0
    assert warm.state_hash(out / "model_final.pth") == warm.state_hash(
        tmp_path / "whole" / "model_final.pth"
    )
    assert (
        hashlib.sha256((out / "model_final.pth").read_bytes()).hexdigest()
        in (out / "model_final.pth.sha256").read_text()
    )
