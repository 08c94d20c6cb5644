"""Train a tiny model for long, and see that memory, open files and logs do not grow.

make soak                                          10,000 iterations, some minutes
python tests/faults/soak.py --iterations 4000

Memory is read twice at a time: as it is, and after the allocator has given back what it keeps of
freed memory. The first goes up and down by 3 MB, as a block of the heap's top happens to be kept or
not, and stays up for thousands of iterations when nothing trims the heap; what the program holds
does not.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT)]

MAX_MB, MAX_LOG_MB = 0.2, 1.0  # per 1,000 iterations
WARM = 1200  # iterations after which histories of metrics are full, and all code was run


@dataclass(frozen=True)
class Reading:
    """After an iteration: memory in RAM, as it is and trimmed; open files; size of the logs."""

    iteration: int
    memory_mb: float
    trimmed_mb: float
    files: int
    log_mb: float


@dataclass(frozen=True)
class Growth:
    """Per 1,000 iterations, by least squares, but for files: more at the end than at first.

    `median_mb`, the median slope between any two readings of the trimmed memory, tells whether a
    slope is a trend or one step. It decides nothing: growth in steps that are rarer than half of
    the readings would not show in it.
    """

    memory_mb: float
    trimmed_mb: float
    median_mb: float
    files: int
    log_mb: float

    def too_much(self) -> bool:
        """Whether a limit is passed.

        Memory by least squares, as it is and trimmed: of growth by the same amount in each
        iteration the slope is that amount, whatever else goes on, and steps count by their size.
        """
        return (
            max(self.memory_mb, self.trimmed_mb) > MAX_MB
            or self.files > 0
            or self.log_mb > MAX_LOG_MB
        )


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


def trim() -> None:
    """Let glibc give freed memory back; other libraries keep what they keep."""
    give_back = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if give_back is not None:
        give_back(0)


def soak(iterations: int, folder: Path, every: int = 100) -> list[Reading]:
    """Train, and read at every so many iterations."""
    from seg_plugins.engine import Trainer, setup

    import warm
    from detectron2.engine import HookBase

    readings: list[Reading] = []

    class Read(HookBase):
        def after_step(self) -> None:
            iteration = self.trainer.iter + 1
            if iteration % every == 0:
                gc.collect()
                memory = resident_mb()
                trim()
                readings.append(
                    Reading(iteration, memory, resident_mb(), open_files(), log_mb(folder))
                )

    opts: Any = (
        *("SOLVER.MAX_ITER", str(iterations), "LOG_PERIOD", "20", "SOLVER.IMS_PER_BATCH", "1"),
        *("MODEL.UNET.WIDTH", "4", "SOLVER.CHECKPOINT_PERIOD", "500"),
        *("SOLVER.KEEP_CHECKPOINTS", "2"),
    )
    trainer = Trainer(setup(warm.arguments(folder, *opts)))
    trainer.resume_or_load(resume=False)
    trainer.register_hooks([Read()])
    trainer.train()
    return readings


def growth(readings: list[Reading], warm: int = WARM) -> Growth:
    """What grows after so many iterations."""
    late = [reading for reading in readings if reading.iteration > warm]
    when = [r.iteration / 1000 for r in late]

    def slope(values: list[float]) -> float:
        return statistics.linear_regression(when, values).slope

    trimmed = [r.trimmed_mb for r in late]
    median = statistics.median(
        (b - a) / (t - s)
        for i, (s, a) in enumerate(zip(when, trimmed, strict=True))
        for t, b in zip(when[i + 1 :], trimmed[i + 1 :], strict=True)
    )
    return Growth(
        memory_mb=slope([r.memory_mb for r in late]),
        trimmed_mb=slope(trimmed),
        median_mb=median,
        files=late[-1].files - late[0].files,
        log_mb=slope([r.log_mb for r in late]),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--iterations", type=int, default=10_000)
    args = parser.parse_args()
    if args.iterations < 2 * WARM:
        parser.error(f"--iterations {args.iterations} should be {2 * WARM} or more, to be warm")
    with tempfile.TemporaryDirectory() as work:
        os.environ["DETECTRON2_DATASETS"] = work
        import torch
        import warm

        torch.set_num_threads(1)
        warm.register_dataset(Path(work))
        readings = soak(args.iterations, Path(work) / "run")
    for r in readings[4::5]:
        print(
            f"{r.iteration:6d} iterations: {r.memory_mb:7.1f} MB, trimmed {r.trimmed_mb:7.2f} MB, "
            f"{r.files} open files, {r.log_mb:.2f} MB of logs"
        )
    found = growth(readings)
    print(
        f"per 1,000 iterations: {found.memory_mb:+.3f} MB of memory, trimmed "
        f"{found.trimmed_mb:+.3f} MB (each at most {MAX_MB}; median slope {found.median_mb:+.3f}), "
        f"{found.files:+d} open files, {found.log_mb:.3f} MB of logs (at most {MAX_LOG_MB})"
    )
    return int(found.too_much())


if __name__ == "__main__":
    sys.exit(main())
