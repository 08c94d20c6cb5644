"""Several processes on the CPU (gloo, through torchrun) against one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_run import TINY

ROOT = Path(__file__).resolve().parents[2]
# No batch statistics, no dropout, no augmentation; uneven numbers of valid pixels per image.
EXACT = [
    *("MODEL.TIMM.NORM", "GN", "MODEL.SEM_SEG_HEAD.NORM", "GN", "INPUT.RANDOM_FLIP", "none"),
    *("MODEL.SEM_SEG_HEAD.ASPP_DROPOUT", "0.0", "SOLVER.IMS_PER_BATCH", "4"),
    *("MODEL.SEM_SEG_HEAD.ASPP_CHANNELS", "32", "MODEL.SEM_SEG_HEAD.CONVS_DIM", "32"),
    *("MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS", "[32]"),
    *("MODEL.SEM_SEG_HEAD.LOSS_TYPE", "cross_entropy"),  # Dice is taken over each process's batch
    *("SOLVER.MAX_ITER", "4", "SOLVER.OPTIMIZER", "SGD", "SOLVER.BASE_LR", "0.05"),
]


def run(
    folder: Path, custom: Path, launcher: list[str], *opts: str, nodes: int = 1
) -> dict[int, float]:
    """Lines of metrics.json by iteration; each node starts the same command with its number."""
    command = [
        str(ROOT / "tools" / "train_net.py"),
        *("--config-file", "quickstart/deeplabv3plus_r18_shapes.yaml", "--num-gpus", "0"),
        *(*TINY, *EXACT, "DATASETS.CUSTOM", str(custom), "OUTPUT_DIR", str(folder), *opts),
    ]
    started = []
    for node in range(nodes):
        place = [f"--node-rank={node}"] if nodes > 1 else []
        started.append(
            subprocess.Popen(
                [sys.executable, *launcher, *place, *command],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    try:
        for process in started:
            _, stderr = process.communicate(timeout=300)
            assert process.returncode == 0, stderr[-3000:]
    finally:
        for process in started:
            process.kill()
    lines = map(json.loads, (folder / "metrics.json").read_text().splitlines())
    return {line["iteration"]: line for line in lines if "total_loss" in line}


def torchrun(processes: int) -> list[str]:
    if processes == 1:
        return []
    return ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_several_processes_take_the_same_steps_as_one(tmp_path, custom, processes):
    """Of four, one has no image to evaluate."""
    one = run(tmp_path / "one", custom, torchrun(1))
    several = run(tmp_path / "several", custom, torchrun(processes))
    assert sorted(one) == sorted(several) == [0, 1, 2, 3]
    for iteration in one:
        loss = one[iteration]["total_loss"]
        assert several[iteration]["total_loss"] == pytest.approx(loss, rel=1e-4)
    # The evaluation is shared out and gathered: the same images, each once, the same scores.
    first, second = (
        json.loads((tmp_path / name / "inference" / "sem_seg_results.json").read_text())
        for name in ("one", "several")
    )
    assert second["images"] == {"expected": 3, "scored": 3}
    scores = (run["results"]["sem_seg"]["mIoU"] for run in (first, second))
    assert next(scores) == pytest.approx(next(scores), abs=0.2)


@pytest.mark.slow
def test_two_nodes_of_one_process_give_the_digits_of_two_processes(tmp_path, custom):
    processes = run(tmp_path / "processes", custom, torchrun(2))
    meeting = [f"--master-port={free_port()}", "--master-addr=127.0.0.1"]
    nodes = run(
        tmp_path / "nodes", custom,
        ["-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", *meeting], nodes=2,
    )  # fmt: skip
    assert [nodes[i]["total_loss"] for i in range(4)] == [
        processes[i]["total_loss"] for i in range(4)
    ]
    results = [
        json.loads((tmp_path / name / "inference" / "sem_seg_results.json").read_text())["results"]
        for name in ("processes", "nodes")
    ]
    assert results[0] == results[1]


@pytest.mark.slow
def test_a_stage_that_no_head_uses_trains_as_in_one_process(tmp_path, custom):
    """In parts, too: the last part alone is synchronised."""
    stages = [
        *("MODEL.TIMM.OUT_FEATURES", "['res2','res4','res5']"),
        *("MODEL.SEM_SEG_HEAD.IN_FEATURES", "['res2','res4']", "SOLVER.ACCUMULATE", "2"),
    ]
    one = run(tmp_path / "one", custom, torchrun(1), *stages)
    two = run(tmp_path / "two", custom, torchrun(2), *stages)
    for iteration in one:
        loss = one[iteration]["total_loss"]
        assert two[iteration]["total_loss"] == pytest.approx(loss, rel=1e-4)
