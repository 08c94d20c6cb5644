"""A few runs of each fault with a fixed seed; `make faults` makes all of them."""

from __future__ import annotations

import hashlib
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


def test_nan_in_one_system(tmp_path):
    row = nonfinite_runs.not_finite(1, random.Random(0), tmp_path)
    assert row.passed, row.line()


def test_memory_files_and_logs_do_not_grow(tmp_path, monkeypatch):
    """In short, with a history of metrics that is soon full: 1.3 MB per 1,000 iterations, which
    an endless history takes, would show."""
    monkeypatch.setattr(writers, "HISTORY", 50)
    measured = soak.soak(400, tmp_path / "run", every=20)
    memory, opened, logs = soak.growth(measured)
    assert memory <= 1.0, measured
    assert opened <= 0
    assert logs <= soak.MAX_LOG_MB


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
