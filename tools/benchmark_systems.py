#!/usr/bin/env python
"""Training step and inference of each system beside the peer that offers the same one.

python tools/benchmark_systems.py [--device cuda] [--repeats 5] [--size 256] [--compile] [NAME ...]

Peers: Detectron2's DeepLab project, Mask R-CNN and PanopticFPN, segmentation_models.pytorch and
torchvision; a peer that is not installed is named as missing. Every pair takes turns in one
process, which keeps freed memory as a training on the CPU does, on random images, from random
weights; figures are medians in milliseconds, ratios are the peer's time over ours. Three settings:
float32 in PyTorch's layout, channels last, and channels last with bfloat16. "Default" compares the
peer's float32 in PyTorch's layout with our bfloat16 in channels last. Multiply-adds say how alike
two networks are: the U-Nets and FCNs differ.
"""

from __future__ import annotations

import argparse
from functools import partial

import seg_plugins  # noqa: F401 - repairs Detectron2 before it is imported
from seg_plugins.engine.process import keep_freed_memory

import torch
from detectron2.utils.events import EventStorage
from system_pairs import PAIRS, Contestant
from timing import medians
from torch.utils.flop_counter import FlopCounterMode

SETTINGS = ("fp32", "channels last", "channels last, bf16")


def set_up(contestant: Contestant, setting: str, device: str, compiled: bool) -> None:
    """Bring a model to its device and layout; compile backbone and head, or the whole."""
    contestant.model.to(device)
    if "channels last" in setting:
        contestant.model.to(memory_format=torch.channels_last)
    if compiled:
        parts = [part for name in ("backbone", "sem_seg_head")
                 if (part := getattr(contestant.model, name, None)) is not None]  # fmt: skip
        for part in parts or [contestant.model]:
            part.compile()


def run(contestant: Contestant, training: bool, setting: str, device: str) -> None:
    """One training step's forward and backward pass, or one prediction."""
    half = torch.autocast(device, torch.bfloat16, enabled="bf16" in setting)
    contestant.model.train(training)
    torch.manual_seed(1)
    if training:
        contestant.model.zero_grad()
        with EventStorage(), half:
            loss = contestant.train(contestant.model)
        loss.backward()
    else:
        with torch.inference_mode(), half:
            contestant.infer(contestant.model)


def step_memory(contestant: Contestant, setting: str) -> float:
    """GiB of the GPU that one training step takes beside weights and gradients."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run(contestant, True, setting, "cuda")
    return (torch.cuda.max_memory_allocated() - before) / 2**30


def multiply_adds(contestant: Contestant) -> float:
    """Billions, of one prediction."""
    contestant.model.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        contestant.infer(contestant.model)
    return counter.get_total_flops() / 2e9


def compare(name: str, args: argparse.Namespace) -> None:
    """Print the rows of one pair."""
    peer_name, own, peer = PAIRS[name]
    times: dict[tuple[str, str], dict[str, float]] = {}
    memory: dict[str, dict[str, float]] = {}
    counts: dict[str, float] = {}
    for setting in args.settings:
        contestants = {"ours": own(args.size), "peer": peer(args.size)}
        if contestants["peer"] is None:
            print(f"| {name} | {peer_name}: not installed |")
            return
        comparable = all(c.infer is not None for c in contestants.values())
        work = {"training": True, "inference": False} if comparable else {"training": True}
        if setting == args.settings[0] and comparable and args.device == "cpu":
            counts = {who: multiply_adds(c) for who, c in contestants.items()}
        for contestant in contestants.values():
            set_up(contestant, setting, args.device, args.compile)
        for kind, training in work.items():
            times[kind, setting] = medians(
                {who: partial(run, c, training, setting, args.device)
                 for who, c in contestants.items()},
                args.repeats,
                args.device,
            )  # fmt: skip
        if args.device == "cuda":
            memory[setting] = {who: step_memory(c, setting) for who, c in contestants.items()}
    if memory:
        cells = [f"{m['ours']:.2f} / {m['peer']:.2f} GiB" for m in memory.values()]
        print("| " + " | ".join([name, peer_name, "memory of a step", "-", *cells, "-"]) + " |")
    for kind in work:
        cells = [
            f"{t['ours']:.0f} / {t['peer']:.0f} ({t['peer'] / t['ours']:.2f}x)"
            for t in (times[kind, setting] for setting in args.settings)
        ]
        default = times[kind, args.settings[0]]["peer"] / times[kind, args.settings[-1]]["ours"]
        amounts = f"{counts['ours']:.1f} / {counts['peer']:.1f}" if counts else "-"
        row = [name, peer_name, kind, amounts, *cells, f"{default:.2f}x"]
        print("| " + " | ".join(row) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help=f"of {', '.join(PAIRS)}; all without one")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--size", type=int, default=256, help="pixels on a side")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=SETTINGS)
    parser.add_argument("--compile", action="store_true", help="torch.compile both sides")
    args = parser.parse_args()
    if unknown := set(args.names) - set(PAIRS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(PAIRS)}")
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    device = torch.cuda.get_device_name() if args.device == "cuda" else f"{args.threads} threads"
    compiled = ", compiled" if args.compile else ""
    print(f"{device}{compiled}; training 2 images, inference 1, of {args.size}x{args.size}; ms")
    print(
        "| system | peer | work | G multiply-adds | " + " | ".join(args.settings) + " | default |"
    )
    print("|---" * (5 + len(args.settings)) + "|")
    for name in args.names or PAIRS:
        compare(name, args)


if __name__ == "__main__":
    main()
