"""Evaluators against the peers: same input, same digits (checked in the run), medians and ratios.

    python tools/benchmark_evaluation.py                # every row
    python tools/benchmark_evaluation.py semantic pq    # some
    python tools/benchmark_evaluation.py memory --images 100000
    python tools/benchmark_evaluation.py coco --cores 2   # libraries with threads of their own

Peer and evaluator run in turn in this process. Peers that cannot be imported are named.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import seg_plugins  # noqa: F401 - repairs Detectron2 before it is imported

import torch
from evaluation_benchmarks.boundary import boundary
from evaluation_benchmarks.cityscapes import cityscapes_instances, cityscapes_pixels
from evaluation_benchmarks.coco import coco, coco_hotcoco
from evaluation_benchmarks.lvis import lvis
from evaluation_benchmarks.memory import memory_instances
from evaluation_benchmarks.panoptic import pq
from evaluation_benchmarks.semantic import memory, semantic

ROWS: dict[str, Callable[[Path, int], None]] = {
    "semantic": semantic,
    "cityscapes_pixels": cityscapes_pixels,
    "cityscapes_instances": cityscapes_instances,
    "pq": pq,
    "coco": coco,
    "coco_hotcoco": coco_hotcoco,
    "boundary": boundary,
    "lvis": lvis,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", choices=["memory", *ROWS, []], help="all unless named")
    parser.add_argument("--repeats", type=int, default=9, help="runs per figure (default 9)")
    parser.add_argument("--images", type=int, default=100_000, help="images of the memory row")
    parser.add_argument("--cores", type=int, help="pin the process to the first N cores it may use")
    arguments = parser.parse_args()
    if arguments.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
        torch.set_num_threads(arguments.cores)
    load = os.getloadavg()[0]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = f"{torch.get_num_threads()} threads on {cores} cores"
    print(f"{threads}, load {load:.1f}, PyTorch {torch.__version__}")
    print(f"medians of {arguments.repeats} runs in ms\n")
    print("| work | peer | peer ms | here | ms | ratio |\n|---|---|---|---|---|---|")
    # Memory first: what other rows leave behind would hide it.
    for row in arguments.rows or ["memory", *ROWS]:
        with tempfile.TemporaryDirectory() as scratch:
            if row == "memory":
                memory(Path(scratch), arguments.repeats, arguments.images)
                memory_instances(Path(scratch), arguments.images)
            else:
                ROWS[row](Path(scratch), arguments.repeats)


if __name__ == "__main__":
    main()
