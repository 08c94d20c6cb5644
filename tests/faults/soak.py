"""Train a tiny model for long, and see that memory, open files and logs do not grow.

make soak                                          10,000 iterations, some minutes
python tests/faults/soak.py --iterations 2000
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT)]

MAX_MB, MAX_LOG_MB = 0.2, 1.0  # per 1,000 iterations


def resident_mb() -> float:
    """Memory of this process that is in RAM."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def open_files() -> int:
    """File descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))


def log_mb(folder: Path) -> float:
    """Size of all that is not a checkpoint."""
    files = (f for f in folder.rglob("*") if f.is_file() and ".pth" not in f.name)
    return sum(f.stat().st_size for f in files) / 1e6


def soak(iterations: int, folder: Path, every: int = 500) -> list[tuple[int, float, int, float]]:
    """Train; (iteration, resident MB, open files, MB of logs) at every so many iterations."""
    from seg_plugins.engine import Trainer, setup

    import warm
    from detectron2.engine import HookBase

    measured: list[tuple[int, float, int, float]] = []

    class Measure(HookBase):
        def after_step(self) -> None:
            if (self.trainer.iter + 1) % every == 0:
                gc.collect()
                measured.append(
                    (self.trainer.iter + 1, resident_mb(), open_files(), log_mb(folder))
                )

    opts: Any = (
        *("SOLVER.MAX_ITER", str(iterations), "LOG_PERIOD", "20", "SOLVER.IMS_PER_BATCH", "1"),
        *("MODEL.UNET.WIDTH", "4", "SOLVER.CHECKPOINT_PERIOD", "500"),
        *("SOLVER.KEEP_CHECKPOINTS", "2"),
    )
    trainer = Trainer(setup(warm.arguments(folder, *opts)))
    trainer.resume_or_load(resume=False)
    trainer.register_hooks([Measure()])
    trainer.train()
    return measured


def growth(measured: list[tuple[int, float, int, float]]) -> tuple[float, int, float]:
    """MB of memory per 1,000 iterations, more open files, MB of logs per 1,000 iterations.

    Memory by the median slope between any two moments of the second half, when everything is
    warm: growth shows in all of them, one step of the allocator in few.
    """
    late = measured[len(measured) // 2 :]
    slope = statistics.median(
        (b[1] - a[1]) / (b[0] - a[0]) for i, a in enumerate(late) for b in late[i + 1 :]
    )
    first, last = late[0], late[-1]
    logs = (last[3] - first[3]) / (last[0] - first[0])
    return 1000 * slope, last[2] - first[2], 1000 * logs


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--iterations", type=int, default=10_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        os.environ["DETECTRON2_DATASETS"] = work
        import torch
        import warm

        torch.set_num_threads(1)
        warm.register_dataset(Path(work))
        measured = soak(args.iterations, Path(work) / "run")
    for iteration, memory, files, logs in measured:
        print(
            f"{iteration:6d} iterations: {memory:7.1f} MB, {files} open files, {logs:.2f} MB logs"
        )
    memory, files, logs = growth(measured)
    print(f"per 1,000 iterations: {memory:+.3f} MB of memory (at most {MAX_MB}), {files:+d} open "
          f"files, {logs:.3f} MB of logs (at most {MAX_LOG_MB})")  # fmt: skip
    return int(memory > MAX_MB or files > 0 or logs > MAX_LOG_MB)


if __name__ == "__main__":
    sys.exit(main())
