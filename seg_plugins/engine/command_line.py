"""The flags of a training and the ways that it is started.

Started plain: one process, on the GPU when there is one. ``--num-gpus N``: Detectron2's own
launcher spawns N processes on each machine. Under ``torchrun``: the processes are there already,
and its environment variables say who is who; without a GPU they talk through gloo.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from detectron2.engine import launch as detectron2_launch
from detectron2.utils import comm

from ..arguments.commands import command_parser
from ..plugins import ImportAction
from .process import passed_on


def argument_parser() -> argparse.ArgumentParser:
    """The flags of ``seg-plugins train``, for a program of your own: Detectron2's standard ones."""
    return command_parser("train", import_action=ImportAction)


def launch(main: Callable[[argparse.Namespace], Any], args: argparse.Namespace) -> Any:
    """Run ``main(args)`` in every process of the job.

    Returns:
        What ``main`` returned, where this process runs it itself (one process, or torchrun).
    """
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        return _launch_torchrun(main, args)
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if args.num_gpus is None:
        args.num_gpus = min(1, gpus)
    if args.num_gpus < 0:
        raise SystemExit(f"--num-gpus {args.num_gpus}: 0 is the CPU, 1 or more are GPUs.")
    if args.num_gpus > gpus:
        raise SystemExit(
            f"--num-gpus {args.num_gpus}: this machine has {gpus} usable GPU(s). Use --num-gpus "
            f"{gpus}" + ("" if gpus else ", or torchrun for several processes on the CPU") + "."
        )
    _check_machines(args)
    if args.num_gpus * args.num_machines <= 1:
        return main(args)
    with passed_on():
        detectron2_launch(
            main,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(args,),
        )
    return None


def _check_machines(args: argparse.Namespace) -> None:
    """Refuse machines that would not find each other, or would each train for itself."""
    machines, rank = args.num_machines, args.machine_rank
    if machines < 1 or not 0 <= rank < machines:
        raise SystemExit(
            f"--machine-rank {rank} of --num-machines {machines}: ranks count from 0 to the number "
            "of machines less one."
        )
    if machines > 1 and args.num_gpus < 1:
        raise SystemExit(
            f"--num-machines {machines} takes GPUs, and this machine uses none. On CPUs start "
            f"torchrun on each machine, with its own number from 0 on as --node-rank: torchrun "
            f"--nnodes {machines} --node-rank 0 --nproc-per-node 1 --master-addr HOST "
            "--master-port 29500 -m seg_plugins train --num-gpus 0 --config-file CONFIG"
        )
    if machines > 1 and args.dist_url == "auto":
        raise SystemExit(
            f"--num-machines {machines} needs the address of machine 0, the same on all: "
            "--dist-url tcp://HOST:29500."
        )


def _launch_torchrun(main: Callable[[argparse.Namespace], Any], args: argparse.Namespace) -> Any:
    if args.num_machines > 1 and args.num_machines * int(os.environ["LOCAL_WORLD_SIZE"]) != int(
        os.environ["WORLD_SIZE"]
    ):
        raise SystemExit(
            f"--num-machines {args.num_machines} is torchrun's to say: torchrun --nnodes "
            f"{args.num_machines} ..."
        )
    local_rank = int(os.environ["LOCAL_RANK"])
    local_size = int(os.environ["LOCAL_WORLD_SIZE"])
    use_gpu = args.num_gpus != 0 and torch.cuda.is_available()
    args.num_gpus = local_size if use_gpu else 0
    if use_gpu:
        torch.cuda.set_device(local_rank)
    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    if restarts:
        args.resume = True  # torchrun has started the processes again after one died
    # PyTorch's own default of 30 minutes is a long silence when a process has died.
    timeout = timedelta(minutes=args.timeout)
    store, rank, world_size = next(dist.rendezvous("env://", timeout=timeout))
    store.set_timeout(timeout)
    # With static rendezvous the store outlives the processes: the addresses of those that have
    # died stand in it, and must not be taken for those of the new ones.
    store = dist.PrefixStore(f"restart_{restarts}", store)
    backend = "nccl" if use_gpu else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=timeout)
    _create_local_group(local_size)
    comm.synchronize()
    result = main(args)
    # Not after an error: the others may be waiting in an exchange that will not come.
    dist.destroy_process_group()
    return result


def _create_local_group(local_size: int) -> None:
    """Tell Detectron2 which ranks share this machine."""
    if hasattr(comm, "create_local_process_group"):  # upstream main
        comm.create_local_process_group(local_size)
        return
    for first in range(0, dist.get_world_size(), local_size):
        ranks = range(first, first + local_size)
        group = dist.new_group(list(ranks))
        if dist.get_rank() in ranks:
            comm._LOCAL_PROCESS_GROUP = group
