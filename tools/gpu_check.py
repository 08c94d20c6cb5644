#!/usr/bin/env python
"""Build, test and measure everything that needs a CUDA GPU, in six minutes at most.

bash tools/gpu_check.sh [--wheels DIR] [--json FILE] [CHECK ...]
python tools/gpu_check.py --collect DIR     # on a machine with a package index: the wheels
bash tools/gpu_check.sh --rehearse          # without a GPU: the CPU form of each phase

Runs from a checkout; nothing is installed. Of packages it takes what is there and, with --wheels,
what a folder holds for Python 3.12: the machine itself needs torch, torchvision, numpy, OpenCV,
Pillow, timm, matplotlib, tensorboard, scipy, tifffile, a C++ compiler and nvcc. --collect gathers
the rest: WHEELS.

Each check is a process; its result is written as a line of FILE when it ends, so that a run that is
cut off has not run in vain. `python tools/gpu_report.py FILE` prints them as the tables of the
documents. The checks, in order, with the seconds that each has:

CHECKS
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[1]
PYTHON = sys.executable
WHEELS = (
    *("pycocotools", "yacs", "omegaconf==2.3.1", "hydra-core", "cityscapesScripts", "termcolor"),
    *("pyquaternion", "coloredlogs", "humanfriendly", "appdirs", "segmentation-models-pytorch"),
    *("hotcoco", "pytest", "pytest-xdist", "execnet", "iniconfig", "pluggy", "hypothesis"),
    *("sortedcontainers", "tabulate", "portalocker", "cloudpickle"),
)
FROM_SOURCE = ("fvcore", "iopath", "antlr4-python3-runtime==4.9.3")
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
OPERATORS = ("tests/ops", "tests/modeling/test_roi_pooler.py", "tests/modeling/test_losses.py",
             "tests/modeling/test_panoptic_merging.py")  # fmt: skip
SYSTEMS = ("Mask R-CNN R50-FPN", "Mask R-CNN R50-FPN (torchvision)", "Mask R-CNN R50-C4",
           "Panoptic FPN R50", "DeepLabv3+ R50", "DeepLabv3+ R50 stride 8",
           "U-Net R50")  # fmt: skip
GRAPHS, COMPILED = "channels last, bf16, CUDA graphs", "channels last, bf16, compiled"
# It ended with a segmentation fault once, on PyTorch 2.11 with a default device: alone and first.
LEVELS = "tests/ops/test_roi_align.py::test_levels_must_agree"


@dataclass(frozen=True)
class Check:
    """A command and its form without a GPU."""

    command: tuple[str, ...]
    rehearsal: tuple[str, ...]


@dataclass(frozen=True)
class Phase:
    """Checks that run beside each other, and the seconds after which what still runs is cut off."""

    seconds: int
    checks: dict[str, Check]


def tool(name: str, *arguments: str) -> tuple[str, ...]:
    return (PYTHON, f"tools/{name}.py", *arguments)


def tests(*arguments: str) -> tuple[str, ...]:
    """Where pytest-xdist is, a test that crashes takes its worker along and not the others."""
    workers = ("-n", "5") if find_spec("xdist") else ()
    options = ("-q", "--no-header", "-p", "no:cacheprovider", "--maxfail=30", "-m", "not slow")
    return (PYTHON, "-m", "pytest", *options, *workers, *arguments)


def alone(test: str) -> tuple[str, ...]:
    """One test in a process of its own; where that crashes, its stack is printed."""
    return (PYTHON, "-X", "faulthandler", "-m", "pytest", "-q", "-p", "no:cacheprovider", test)


def sanitizer(kind: str) -> Check:
    command = ("compute-sanitizer", "--tool", kind, "--error-exitcode", "9")
    return Check((*command, *tool("roi_align_cases")), tool("roi_align_cases", "cpu"))


def training(device: str, scratch: Path, *opts: str) -> tuple[str, ...]:
    config = ("--config-file", "shapes/mask_rcnn_r18_fpn.yaml", "MODEL.DEVICE", device)
    return tool("train_net", *config, "OUTPUT_DIR", str(scratch / "shapes"), *opts)


def phases(scratch: Path) -> tuple[Phase, ...]:
    """All of them, in order: what is worth most comes first. Limits add up to six minutes.

    Args:
        scratch: a folder for what a check writes.
    """
    build = (PYTHON, "setup.py", "build_ext", "--inplace")
    few = ("MODEL.RPN.POST_NMS_TOPK_TEST", "10", "SOLVER.MAX_ITER", "3", "SOLVER.STEPS", "(2,)",
           "SOLVER.IMS_PER_BATCH", "2", "DATALOADER.NUM_WORKERS", "0")  # fmt: skip
    # Two minutes on a GPU, beside the tests; 1000 iterations take five minutes on two CPU cores.
    many = ("SOLVER.MAX_ITER", "800", "SOLVER.STEPS", "(600,750)", "DATALOADER.NUM_WORKERS", "4")
    steps = ("--device", "cuda", "--size", "512", "--repeats", "3")
    small = ("--device", "cpu", "--size", "64", "--repeats", "1", SYSTEMS[0])
    settings = ("fp32", "channels last", "channels last, bf16", GRAPHS)
    return (
        Phase(70, {"build": Check(build, (PYTHON, "-m", "seg_plugins.ops"))}),
        Phase(20, {"first case": Check(alone(f"{LEVELS}[cuda]"), alone(f"{LEVELS}[cpu]"))}),
        Phase(30, {"roi_align": Check(
            tool("benchmark_roi_align", "--device", "cuda"),
            tool("benchmark_roi_align", "--device", "cpu", "--repeats", "1", "--rows", "1"))}),
        Phase(80, {"training_steps": Check(
            tool("benchmark_systems", *steps, "--settings", *settings, "--", *SYSTEMS),
            tool("benchmark_systems", *small, "--settings", "fp32"))}),
        Phase(115, {
            "operators": Check(
                tests("-k", "cuda", "--deselect", f"{LEVELS}[cuda]", *OPERATORS),
                tests("-k", "queues and cpu", *OPERATORS)),
            "systems": Check(
                tests("-k", "cuda or gpu or device", "tests/contracts"),
                tests("-k", "cpu and SOLOv2 and boxes", "tests/contracts")),
            "memcheck": sanitizer("memcheck"),
            "racecheck": sanitizer("racecheck"),
            "training": Check(training("cuda", scratch, *many), training("cpu", scratch, *few)),
        }),
        Phase(45, {"compiled_steps": Check(
            tool("benchmark_systems", *steps, "--work", "training", "--settings", COMPILED, "--",
                 SYSTEMS[0]),
            tool("benchmark_systems", *small, "--work", "training", "--backend", "aot_eager",
                 "--settings", COMPILED))}),
    )  # fmt: skip


def machine() -> dict[str, str]:
    """What the figures were measured with."""
    import torch
    import torchvision

    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, text=True, capture_output=True
    ).stdout.strip()
    found = {"python": platform.python_version(), "torch": torch.__version__,
             "torchvision": torchvision.__version__, "commit": commit}  # fmt: skip
    if torch.cuda.is_available():
        driver = subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
            text=True, capture_output=True,
        ).stdout.strip()  # fmt: skip
        found |= {"gpu": torch.cuda.get_device_name(), "driver": driver,
                  "cuda": str(torch.version.cuda)}  # fmt: skip
    return found


RUNNING: set[int] = set()


def stop(*_: object) -> NoReturn:
    """End what runs, too, when this is ended: checks are sessions of their own."""
    for process in tuple(RUNNING):
        os.killpg(process, signal.SIGKILL)
    os._exit(143)


def run(name: str, command: tuple[str, ...], seconds: float) -> dict[str, object]:
    """Run a check; its output is shown and kept."""
    start = time.monotonic()
    if shutil.which(command[0]) is None:
        return {"phase": name, "status": f"not possible: {command[0]} is not here", "output": ""}
    process = subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    RUNNING.add(process.pid)
    try:
        output, _ = process.communicate(timeout=seconds)
        status = "passed" if process.returncode == 0 else f"failed ({process.returncode})"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        status = f"cut off after {seconds:.0f} s"
    RUNNING.discard(process.pid)
    if "Device not supported" in output:  # compute-sanitizer, in some virtual machines
        status = "not possible: Device not supported"
    lines = output.splitlines()
    took = round(time.monotonic() - start, 1)
    text = "\n".join(
        [f"== {name}: {shlex.join(command)}", *lines[-40:], f"== {name}: {status}, {took} s"]
    )
    print(text, flush=True)
    return {"phase": name, "status": status, "seconds": took, "output": "\n".join(lines[-400:])}


def add_path(folder: str) -> None:
    """Have the phases' processes look for packages there, too."""
    paths = filter(None, [folder, os.environ.get("PYTHONPATH")])
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)


def collect(folder: Path) -> None:
    """Put the wheels for a machine with Python 3.12 into a folder."""
    pip = [PYTHON, "-m", "pip"]
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    subprocess.run(
        [*pip, "download", "-q", "--no-deps", "--only-binary=:all:", "--python-version", "3.12",
         *platforms, "-d", str(folder), *WHEELS], check=True,
    )  # fmt: skip
    subprocess.run([*pip, "wheel", "-q", "--no-deps", "-w", str(folder), *FROM_SOURCE], check=True)
    subprocess.run([*tool("install_detectron2"), "--wheel", str(folder)], cwd=ROOT, check=True)
    size = sum(path.stat().st_size for path in folder.iterdir()) / 2**20
    print(f"{len(list(folder.iterdir()))} wheels, {size:.1f} MiB: {folder}")


def described(scratch: Path) -> str:
    """The checks for the help; those on one line run beside each other."""
    return "\n".join(f"  {phase.seconds:3} {', '.join(phase.checks)}" for phase in phases(scratch))


def main() -> int:
    signal.signal(signal.SIGTERM, stop)
    with tempfile.TemporaryDirectory(prefix="gpu_check_") as folder:
        return start(Path(folder))


def start(scratch: Path) -> int:
    text = __doc__.replace("CHECKS", described(scratch))
    parser = argparse.ArgumentParser(
        description=text.replace("WHEELS", textwrap.fill(", ".join((*WHEELS, *FROM_SOURCE)), 98)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("checks", nargs="*", metavar="CHECK", help="default: all")
    add("--json", type=Path, default=Path("gpu_check.jsonl"), help="default: gpu_check.jsonl")
    add("--wheels", type=Path, metavar="DIR", help="folder of wheels that this machine lacks")
    add("--collect", type=Path, metavar="DIR", help="gather those wheels, and end")
    add("--rehearse", action="store_true", help="the CPU form of each check")
    args = parser.parse_args()
    if args.collect:
        collect(args.collect)
        return 0
    known = [name for phase in phases(scratch) for name in phase.checks]
    if unknown := set(args.checks) - set(known):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    if args.wheels:
        wheels = sorted(map(str, args.wheels.glob("*.whl")))
        if not wheels:
            parser.error(f"no wheels in {args.wheels}; gather them with --collect {args.wheels}")
        site = scratch / "site"
        subprocess.run(
            [PYTHON, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile",
             "--target", str(site), *wheels], check=True,
        )  # fmt: skip
        sys.path.append(str(site))
        add_path(str(site))
    add_path(str(ROOT))
    return check(args, scratch)


def check(args: argparse.Namespace, scratch: Path) -> int:
    """Run the checks; 1 where one failed or there is no GPU."""
    found = machine()
    if "gpu" not in found and not args.rehearse:
        print("GPU: not run (PyTorch sees no CUDA GPU on this machine; --rehearse does not ask)")
        return 1
    if "gpu" in found:
        import torch

        os.environ.setdefault(
            "TORCH_CUDA_ARCH_LIST", "{}.{}".format(*torch.cuda.get_device_capability())
        )
        os.environ.setdefault("FORCE_CUDA", "1")
        os.environ.setdefault("MAX_JOBS", str(os.cpu_count()))
    os.environ["DETECTRON2_DATASETS"] = str(scratch / "datasets")
    begin, failed = time.monotonic(), []
    with args.json.open("a") as file:
        print(json.dumps({"phase": "machine", **found}), file=file, flush=True)
        for phase in phases(scratch):
            for result in run_phase(phase, args):
                print(json.dumps(result), file=file, flush=True)
                if not str(result["status"]).startswith(("passed", "not possible")):
                    failed.append(f"{result['phase']} {result['status']}")
    took = time.monotonic() - begin
    said = "rehearsed" if args.rehearse else "done"
    print(f"GPU: {said} in {took:.0f} s; {'; '.join(failed) or 'all passed'}")
    return bool(failed)


def run_phase(phase: Phase, args: argparse.Namespace) -> Iterator[dict[str, object]]:
    """The results of a phase's checks as they end."""
    seconds = 200 if args.rehearse else phase.seconds
    with ThreadPoolExecutor(len(phase.checks)) as pool:
        waiting = [
            pool.submit(run, name, c.rehearsal if args.rehearse else c.command, seconds)
            for name, c in phase.checks.items()
            if not args.checks or name in args.checks
        ]
        for done in as_completed(waiting):
            yield done.result()


if __name__ == "__main__":
    sys.exit(main())
