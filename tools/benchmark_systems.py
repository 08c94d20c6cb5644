#!/usr/bin/env python
"""Training step and inference of each system beside the peer that offers the same one.

python tools/benchmark_systems.py [--device cuda] [--repeats 5] [--size 256] [--compile] [NAME ...]
python tools/benchmark_systems.py --device cuda --settings fp32 "channels last, bf16, CUDA graphs"

Peers: Detectron2's DeepLab project, Mask R-CNN and PanopticFPN, segmentation_models.pytorch and
torchvision; a peer that is not installed is named as missing. Every pair takes turns in one
process, which keeps freed memory as a training on the CPU does, on random images, from random
weights; figures are medians in milliseconds, ratios are the peer's time over ours. Three settings:
float32 in PyTorch's layout, channels last, and channels last with bfloat16; on request two more, in
which both sides' backbones run as CUDA graphs, or backbone and head compiled. A setting that
fails is a cell that says so, and the status is 1. "Default" compares the
peer in the first setting with ours in the last. Multiply-adds say how alike
two networks are: the U-Nets and FCNs differ.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from functools import partial

import seg_plugins  # noqa: F401 - repairs Detectron2 before it is imported
from seg_plugins.engine.process import keep_freed_memory

import torch
from detectron2.utils.events import EventStorage
from system_pairs import PAIRS, Contestant
from timing import medians
from torch.utils.flop_counter import FlopCounterMode

SETTINGS = ("fp32", "channels last", "channels last, bf16")
GRAPHS, COMPILED = "channels last, bf16, CUDA graphs", "channels last, bf16, compiled"
Figures = dict[str, float]


def parts_of(model: torch.nn.Module, *names: str) -> list[torch.nn.Module]:
    """The parts of these names that it has; the whole model if none."""
    found = [getattr(model, name) for name in names if hasattr(model, name)]
    return found or [model]


def set_up(contestant: Contestant, setting: str, args: argparse.Namespace) -> None:
    """Bring a model to its device and layout; compile backbone and head, or the whole."""
    contestant.model.to(args.device)
    if "channels last" in setting:
        contestant.model.to(memory_format=torch.channels_last)
    if args.compile or setting == COMPILED:
        for part in parts_of(contestant.model, "backbone", "sem_seg_head"):
            part.compile(backend=args.backend)


def record(contestant: Contestant, training: bool, setting: str) -> None:
    """Have the backbone run as a CUDA graph, in training or in inference."""
    (backbone,) = parts_of(contestant.model, "backbone", "encoder")[:1]
    seen: list[torch.Tensor] = []
    hook = backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    run(contestant, training, setting, "cuda")
    hook.remove()
    contestant.model.zero_grad()
    images = torch.randn_like(seen[0])  # of the size and layout that it will get
    # The cache of autocast keeps weights that a graph must cast itself.
    half = torch.autocast("cuda", torch.bfloat16, cache_enabled=False)
    with half, torch.set_grad_enabled(training):
        torch.cuda.make_graphed_callables(backbone, (images,), allow_unused_input=True)


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


def measure(
    contestants: dict[str, Contestant], setting: str, args: argparse.Namespace
) -> dict[str, Figures]:
    """Milliseconds of each kind of work, and a training step's memory in GiB on a GPU."""
    found: dict[str, Figures] = {}
    for contestant in contestants.values():
        set_up(contestant, setting, args)
    for kind in kinds_of_work(contestants, args):
        training = kind == "training"
        if setting == GRAPHS:
            for contestant in contestants.values():
                contestant.model.train(training)
                record(contestant, training, setting)
        candidates = {who: partial(run, c, training, setting, args.device)
                      for who, c in contestants.items()}  # fmt: skip
        found[kind] = medians(candidates, args.repeats, args.device)
    if args.device == "cuda":
        found["memory"] = {who: step_memory(c, setting) for who, c in contestants.items()}
    return found


def kinds_of_work(contestants: dict[str, Contestant], args: argparse.Namespace) -> list[str]:
    """Inference only where it says something on both sides."""
    comparable = all(c.infer is not None for c in contestants.values())
    return [kind for kind in args.work if kind == "training" or comparable]


def compare(name: str, args: argparse.Namespace) -> bool:
    """Print the rows of one pair; whether every setting ran."""
    peer_name, own, peer = PAIRS[name]
    found: dict[str, dict[str, Figures]] = {}
    counts: Figures = {}
    contestants: dict[str, Contestant] = {}
    for setting in args.settings:
        if not contestants or setting not in SETTINGS:  # graphs and compiled code stay in a model
            built = {"ours": own(args.size), "peer": peer(args.size)}
            contestants = {who: c for who, c in built.items() if c is not None}
        if len(contestants) < 2:
            print(f"| {name} | {peer_name}: not installed |")
            return True
        kinds = kinds_of_work(contestants, args)
        if not counts and "inference" in kinds and args.device == "cpu":
            counts = {who: multiply_adds(c) for who, c in contestants.items()}
        try:
            found[setting] = measure(contestants, setting, args)
        except RuntimeError:  # shown here and in its cells; the other settings still say something
            traceback.print_exc()
            contestants = {}
    if args.device == "cuda":
        print_row(name, peer_name, "memory of a step", "-", args.settings, found, "memory")
    for kind in kinds:
        amounts = f"{counts['ours']:.1f} / {counts['peer']:.1f}" if counts else "-"
        print_row(name, peer_name, kind, amounts, args.settings, found, kind)
    return len(found) == len(args.settings)


def print_row(
    name: str, peer: str, what: str, amounts: str, settings: list[str],
    found: dict[str, dict[str, Figures]], kind: str,
) -> None:  # fmt: skip
    """One line of the table."""
    pairs = [found.get(setting, {}).get(kind) for setting in settings]
    if kind == "memory":
        cells = [f"{p['ours']:.2f} / {p['peer']:.2f} GiB" if p else "failed" for p in pairs]
        best = "-"
    else:
        cells = [
            f"{p['ours']:.0f} / {p['peer']:.0f} ({p['peer'] / p['ours']:.2f}x)" if p else "failed"
            for p in pairs
        ]
        first, last = pairs[0], pairs[-1]
        best = f"{first['peer'] / last['ours']:.2f}x" if first and last else "-"
    print("| " + " | ".join([name, peer, what, amounts, *cells, best]) + " |", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help=f"of {', '.join(PAIRS)}; all without one")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--size", type=int, default=256, help="pixels on a side")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    every = (*SETTINGS, GRAPHS, COMPILED)
    parser.add_argument("--settings", nargs="+", choices=every, default=SETTINGS)
    work = ("training", "inference")
    parser.add_argument("--work", nargs="+", choices=work, default=work)
    parser.add_argument("--compile", action="store_true", help="torch.compile both sides")
    parser.add_argument("--backend", default="inductor", help="of torch.compile")
    args = parser.parse_args()
    if unknown := set(args.names) - set(PAIRS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(PAIRS)}")
    if GRAPHS in args.settings and args.device != "cuda":
        parser.error(f"{GRAPHS!r} needs --device cuda")
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    device = torch.cuda.get_device_name() if args.device == "cuda" else f"{args.threads} threads"
    compiled = ", compiled" if args.compile else ""
    print(f"{device}{compiled}; training 2 images, inference 1, of {args.size}x{args.size}; ms")
    print(
        "| system | peer | work | G multiply-adds | " + " | ".join(args.settings) + " | default |"
    )
    print("|---" * (5 + len(args.settings)) + "|")
    ran = [compare(name, args) for name in args.names or PAIRS]
    return not all(ran)


if __name__ == "__main__":
    sys.exit(main())
