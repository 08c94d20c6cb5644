#!/usr/bin/env python
"""Submit tools/train_net.py to a SLURM cluster; it goes on by itself after preemption.

    pip install submitit
    python tools/submit_slurm.py --nodes 2 --gpus-per-node 8 --hours 24 --partition gpu -- \\
        --config-file configs/cityscapes/deeplabv3plus_r103.yaml OUTPUT_DIR /shared/run1

Before the time is up SLURM sends a signal (SIGUSR2, as submitit asks it to): the training completes
its iteration, saves a checkpoint, and the job goes back to the queue, where it resumes. At SIGTERM
the checkpoint is saved, too: then SLURM itself puts a preempted job back, and a cancelled one is
over. OUTPUT_DIR lies on a disk that all machines see.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# One of these comes before the time is up; submitit's own handlers would end the job at once.
WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)


class Training:
    """One process of the job; submitit stores it, and runs it again after a requeue."""

    def __init__(self, arguments: list[str]) -> None:
        self.arguments = arguments

    def __call__(self) -> None:
        """Train; ask for another turn if the time was up.

        Raises:
            SystemExit: the training has failed; its exit status.
        """
        import submitit

        # All devices stay visible: train_net.py takes the one of its local rank.
        environment = submitit.helpers.TorchDistributedEnvironment().export(
            set_cuda_visible_devices=False
        )
        received: set[int] = set()

        def note(number: int, _: object) -> None:
            received.add(number)
            process.send_signal(number)

        command = [sys.executable, str(ROOT / "tools" / "train_net.py"), "--resume"]
        # A process of its own: its signals and its memory are nobody else's.
        process = subprocess.Popen([*command, *self.arguments], env=dict(os.environ))
        for number in (*WARNINGS, signal.SIGTERM):
            signal.signal(number, note)
        status = process.wait()
        if status:
            raise SystemExit(status)
        if received.intersection(WARNINGS) and environment.rank == 0:
            subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--gpus-per-node", type=int, default=8)
    parser.add_argument("--cpus-per-gpu", type=int, default=8)
    parser.add_argument("--hours", type=float, default=24)
    parser.add_argument("--partition", help="the cluster's default unless given")
    parser.add_argument("--cluster", help="'local' runs on this machine, to try it out")
    parser.add_argument("--folder", default="slurm", help="for submitit's own files")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="of train_net.py, after --")
    args = parser.parse_args()
    try:
        import submitit
    except ModuleNotFoundError:
        sys.exit("error: pip install submitit")
    executor = submitit.AutoExecutor(args.folder, cluster=args.cluster)
    executor.update_parameters(
        nodes=args.nodes,
        gpus_per_node=args.gpus_per_node,
        tasks_per_node=max(args.gpus_per_node, 1),
        cpus_per_task=args.cpus_per_gpu,
        timeout_min=int(60 * args.hours),
        name="seg_plugins",
        slurm_signal_delay_s=120,
    )
    if args.partition:
        executor.update_parameters(slurm_partition=args.partition)
    arguments = [a for i, a in enumerate(args.arguments) if (i, a) != (0, "--")]
    job = executor.submit(Training(arguments))
    print(f"Job {job.job_id}; log: {job.paths.stdout}")


if __name__ == "__main__":
    main()
